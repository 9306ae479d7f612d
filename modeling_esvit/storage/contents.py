# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Says what clones and downloads leave in place of a file, whatever its name is."""

from pathlib import Path

from modeling_esvit.errors import EsViTError


HEAD = 64  # bytes that tell
# Texts, without zero bytes: a file of safetensors may begin with "<", but has some among its first eight.
STAND_INS = (
    (b"version https://git-lfs", "a pointer of Git LFS: fetch the file itself by `git lfs pull`"),
    (b"/annex/objects/", "a pointer of git-annex: fetch the file itself by `git annex get`"),
    (b"<", "a web page, or another file of XML, as an expired download link returns"),
)


def describe_stand_in(head: bytes) -> str:
    """Returns what stands in place of a file that begins so, and what to do; nothing if it may be the file itself."""
    if not head:
        return "there is no content"
    if b"\0" in head:
        return ""
    return next((what for start, what in STAND_INS if head.lstrip().startswith(start)), "")


class StandInError(EsViTError, ValueError):
    """Raised when a file holds what stands in its place."""


def check_itself(file: Path) -> None:
    """Checks that a file is not what stands in its place.

    Raises:
        StandInError: it is.
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        stand_in = describe_stand_in(opened.read(HEAD))
    if stand_in:
        raise StandInError(f"{file.name} is not the file itself: {stand_in}.")
