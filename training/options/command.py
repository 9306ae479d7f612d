# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the command of a program, and checks counts on its command line."""

import argparse
import sys
from collections.abc import Callable

from modeling_esvit.errors import EsViTError


def run_command(command: Callable[[], object]) -> None:
    """Runs the command of a program. Of an error that a user can put right, it prints the message alone."""
    try:
        command()
    except EsViTError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.filename is None:  # then the message does not say what to look at
            raise
        sys.exit(f"error: {error}")


def check_counts(parser: argparse.ArgumentParser, options: argparse.Namespace, *names: str) -> None:
    """Refuses options below 1. Options that were not given, and have no default, are None and pass."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1, got {value}")
