# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the command of a program, with its errors as messages, and checks counts on its command line."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modeling_esvit.errors import EsViTError
from modeling_esvit.programs.ending import exit_stopped, leave_on_sigterm
from modeling_esvit.programs.lost_process import report_lost_process


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
    """Ends the program with the message of the block's error, if a user can put it right; the exit status is 1.

    Ctrl-C and SIGTERM end it with a line, too. So ends one process of several, too, when it loses another.
    """
    try:
        with leave_on_sigterm(), report_lost_process():
            yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in OWN:
            raise
        sys.exit(f"error: this needs the package {error.name}: pip install -e '.[training]'")
    except KeyboardInterrupt as error:
        exit_stopped(error)
    except (EsViTError, OSError) as error:
        if not is_for_user(error):
            raise
        sys.exit(f"error: {get_message(error)}")


def run_command(command: Callable[[], object]) -> None:
    """Runs the command of a program, see [`exit_with_message`]."""
    with exit_with_message():
        command()


def check_counts(parser: argparse.ArgumentParser, options: argparse.Namespace, *names: str) -> None:
    """Refuses options below 1. Options that were not given, and have no default, are None and pass."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
