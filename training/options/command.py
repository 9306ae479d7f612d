# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the command of a program, with its errors as messages, and checks counts on its command line."""

import argparse
import sys
from collections.abc import Callable

from modeling_esvit.errors import EsViTError


def is_for_user(error: BaseException) -> bool:
    """Returns whether a user can put the error right: our own errors, and those whose message names a file."""
    return isinstance(error, EsViTError) or (isinstance(error, OSError) and error.filename is not None)


def run_command(command: Callable[[], object]) -> None:
    """Runs the command of a program. Of an error that a user can put right, it prints the message alone."""
    try:
        command()
    except (EsViTError, OSError) as error:
        if not is_for_user(error):
            raise
        sys.exit(f"error: {error}")


def check_counts(parser: argparse.ArgumentParser, options: argparse.Namespace, *names: str) -> None:
    """Refuses options below 1. Options that were not given, and have no default, are None and pass."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
