# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads paths as users type them, on command lines, in recipes and in Python."""

import os
from argparse import ArgumentTypeError
from pathlib import Path


def parse_name(text: str) -> str:
    """Returns the path, URL or name that a user typed, with the home folder for `~`, which not every shell expands.

    Raises:
        ArgumentTypeError: it is empty, as an unset variable of a shell is, and would mean the current folder.
    """
    if not text.strip():
        raise ArgumentTypeError("it is empty; give a path or a name (is a variable of the shell not set?)")
    return os.path.expanduser(text)


def parse_path(text: str) -> Path:
    """Returns the path that a user typed; see `parse_name`."""
    return Path(parse_name(text))
