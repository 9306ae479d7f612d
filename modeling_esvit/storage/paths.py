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


def expand_home(name: str | os.PathLike[str]) -> Path:
    """Returns a path with the home folder for `~`. That of an unknown user stays as it is, where `pathlib` raises.

    A list of URLs in braces may be too long for a path: `os.path` says that there is none, where `pathlib` raises.
    """
    return Path(os.path.expanduser(name))


def describe_file_in_place(folder: Path) -> str | None:
    """Says which file is where a folder has to be, `folder` or one above it; None if nothing is in its way."""
    places = (place for place in (folder, *folder.parents) if place.exists() and not place.is_dir())
    return next((f"{str(place)!r} is a file where a folder has to be" for place in places), None)


def is_same_place(one: str, other: str) -> bool:
    """Returns whether two names are one, or of one file or folder, as `photographs` and `./photographs/` are."""
    return one == other or os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def measure_existing(pattern: str) -> int:
    """Returns how many characters at the beginning of a pattern name a file or folder that exists, as far as it goes.

    Brackets and braces there are part of a name, as of `/data/[2024] photographs/*.jpg`.
    """
    ends = [*(index for index, letter in enumerate(pattern) if letter in {"/", os.sep}), len(pattern)]
    return next((end for end in reversed(ends) if os.path.exists(os.path.expanduser(pattern[:end]))), 0)


def parse_path(text: str) -> Path:
    """Returns the path that a user typed; see `parse_name`.

    Raises:
        ArgumentTypeError: it is empty, or a URL.
    """
    name = parse_name(text)
    if problem := describe_url(name):
        raise ArgumentTypeError(problem)
    return Path(name)


def describe_url(path: str) -> str | None:
    """Says what is wrong with a URL in place of a path, which would make a folder called `s3:` here; None of others."""
    if "://" not in path:
        return None
    return f"{path!r} is a URL, and only folders and files of this machine can be used here; copy from or to a store"
