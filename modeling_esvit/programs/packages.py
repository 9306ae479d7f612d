# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Says in one line which package a program needs, and what installs it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


EVERYTHING = "pip install -e '.[training,examples]'"


def describe_missing(error: ModuleNotFoundError, command: str) -> str:
    """Returns the line that names the package of a failed import, and the command that installs it."""
    return f"error: this needs the package {error.name}: {command}"


@contextmanager
def exit_without_package(command: str = EVERYTHING) -> Iterator[None]:
    """Ends the program in one line, with the command that helps, if an import of the block needs a missing package."""
    try:
        yield
    except ModuleNotFoundError as error:
        sys.exit(describe_missing(error, command))
