# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Says what came of an input: the right result, a typed error, or a fault."""

import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from modeling_esvit.errors import EsViTError


RIGHT, TYPED, TRACEBACK, HANG, WRONG = KINDS = ("right", "typed error", "traceback", "hang", "silently wrong")
FAULTS = (TRACEBACK, HANG, WRONG)


class WrongError(AssertionError):
    """Raised by an attack when a program went on with what it should have refused."""


Attack = Callable[[Random], object]  # tries one input


class Surface(NamedTuple):
    """Represents a place where this project reads what a stranger may have written.

    name: as the table has it.
    prepare: takes an empty folder, and returns what tries one random input.
    share: of the time.
    """

    name: str
    prepare: Callable[[Path], Attack]
    share: float = 1.0


def is_out_of_memory(error: BaseException | None) -> bool:
    """Returns whether an error came of an allocation beyond the limit of memory, which a larger machine would make."""
    while error is not None:
        if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def judge(attack: Attack, random: Random) -> tuple[str, str]:
    """Tries an input. Returns the kind of its outcome, and where a fault came from."""
    try:
        attack(random)
    except WrongError as error:
        return WRONG, str(error)
    except EsViTError as error:
        return (WRONG, f"it asked for too much memory: {error}") if is_out_of_memory(error) else (TYPED, "")
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return TRACEBACK, f"{type(error).__name__}: {str(error)[:200]} ({last.filename}:{last.lineno})"
    return RIGHT, ""
