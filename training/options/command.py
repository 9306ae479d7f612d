# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the command of a program, with its errors as messages, and checks seeds on its command line."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modeling_esvit.errors import EsViTError
from modeling_esvit.programs import ending
from modeling_esvit.programs.packages import describe_missing
from training.options.pretrain_options import LARGEST_SEED


OWN = ("modeling_esvit", "training", "examples")  # a missing module of these is our own fault


def is_for_user(error: BaseException) -> bool:
    """Returns whether a user can put the error right: our own errors, and those whose message names a file."""
    return isinstance(error, EsViTError) or (isinstance(error, OSError) and error.filename is not None)


def get_message(error: BaseException) -> str:
    """Returns the message of an error, without the traceback that torch puts around one of a worker."""
    text = str(error).strip()
    return text.rpartition(f"{type(error).__name__}: ")[2] if text.startswith("Caught ") else text


@contextmanager
def exit_with_message() -> Iterator[None]:
    """Ends the program with the message of the block's error, if a user can put it right, or after Ctrl-C.

    See `modeling_esvit.programs.ending`. A missing package is said with the command that installs it.
    """
    try:
        with ending.exit_with_message(is_for_user, get_message):
            yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in OWN:
            raise
        sys.exit(describe_missing(error, "pip install -e '.[training]'"))


def run_command(command: Callable[[], object]) -> None:
    """Runs the command of a program, see [`exit_with_message`]."""
    with exit_with_message():
        command()


def parse_seed(text: str) -> int:
    """Returns a seed that torch, NumPy and scikit-learn take.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        seed = int(text)
    except ValueError:
        seed = -1
    if not 0 <= seed <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 to {LARGEST_SEED}, got {text!r}")
    return seed
