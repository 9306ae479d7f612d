# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Ends the program with one clear message, in one process or in many."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from modeling_esvit.errors import EsViTError
from training.options.command import is_for_user
from training.options.errors import SharedError
from training.state.interruption import EXIT_CODE, InterruptedRunError


def get_message(error: BaseException) -> str:
    """Returns the message of an error, without the traceback that torch puts around one of a worker."""
    text = str(error).strip()
    return text.rpartition(f"{type(error).__name__}: ")[2] if text.startswith("Caught ") else text


@contextmanager
def exit_with_message() -> Iterator[None]:
    """Ends the program with the message of the block's error, if a user can put it right.

    The exit status is that of an interrupted run, or 1.
    """
    try:
        yield
    except InterruptedRunError as error:
        leave_word_to_main(EXIT_CODE)
        print(error, file=sys.stderr)
        sys.exit(EXIT_CODE)
    except (EsViTError, OSError) as error:
        if not is_for_user(error):
            raise
        if isinstance(error, SharedError):
            leave_word_to_main(1)
        sys.exit(f"error: {get_message(error)}")


def leave_word_to_main(code: int) -> None:
    """Ends every process but the main one without a message, when all of them fail for the same reason.

    They wait a little: a launcher that sees one of them end stops the others, maybe before the main one has printed its
    message.
    """
    if int(os.environ.get("RANK", 0)):
        time.sleep(1)
        sys.exit(code)
