# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Refuses images whose file says the same bytes again and again, or in very many pieces, as no program writes them.

Pillow reads the values of all tags of a TIFF, or of what a camera noted, and decodes all of its strips, one after the
other. Where thousands of them are the same bytes, a small file takes gigabytes, or hours. It joins the pieces of a
comment one by one, each to a copy of all before it: a million of them take hours, too.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import IO, Any, TypeAlias

from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, ImageFileDirectory_v2, TiffImageFile

from modeling_esvit.images.memory import PLANES, SEPARATE


SHARED = 2**16  # bytes that tags may share, as some programs store two equal values once
PIECE = 2**16  # bytes below which what is read may be joined to what was read before
COPIED = 2**34  # bytes that joining them may copy in all: 1 or 2 seconds
COUNTING_SECONDS = 5  # of the CPU, after which no more frames are counted
SUBSAMPLED = 2  # a strip may have this part of its bytes, if colours are stored at half of the size

SizeCheck: TypeAlias = Callable[[int], object]  # is told how many bytes a read has returned
IS_BOUND: ContextVar[bool] = ContextVar("is_bound", default=False)  # whether the tags that are read are limited
_load_tags = ImageFileDirectory_v2.load


class CountingError(ValueError):
    """Raised when a file has more frames than can be counted in COUNTING_SECONDS."""


class BoundedFile:
    """Wraps a file, and tells `check` the number of bytes of each read."""

    def __init__(self, file: IO[bytes], check: SizeCheck) -> None:
        self.file, self.check = file, check

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def read(self, size: int = -1) -> bytes:
        content = self.file.read(size)
        self.check(len(content))
        return content


def ignore_size(size: int) -> None:
    pass


def limit_bytes(allowed: int) -> SizeCheck:
    """Returns a check that raises ValueError when more is read than allowed."""
    left = allowed

    def check(size: int) -> None:
        nonlocal left
        left -= size
        if left < 0:
            raise ValueError("the values of its tags lie in each other: it is damaged")

    return check


def limit_pieces() -> SizeCheck:
    """Returns a check that raises ValueError when so many small pieces are read that joining them may take hours."""
    joined = copied = 0

    def check(size: int) -> None:
        nonlocal joined, copied
        if size < PIECE:
            joined += size
            copied += joined
        if copied > COPIED:
            raise ValueError("its comments, or what a camera noted, are in too many pieces: it is damaged")

    return check


def limit_counting() -> SizeCheck:
    """Returns a check that raises CountingError after COUNTING_SECONDS."""
    end = time.thread_time() + COUNTING_SECONDS

    def check(size: int) -> None:
        if time.thread_time() > end:
            raise CountingError("it has too many frames to be counted")

    return check


@contextmanager
def bound_tags() -> Iterator[None]:
    """Bounds the tags that Pillow reads in this block, as `decode` does; those that others read by Pillow are not."""
    token = IS_BOUND.set(True)
    try:
        yield
    finally:
        IS_BOUND.reset(token)


def load_tags(directory: ImageFileDirectory_v2, file: IO[bytes]) -> None:
    """Loads the tags of a directory as Pillow does, which has no limit of its own; in `bound_tags` with one.

    Pillow takes what a camera noted out of a JPEG or AVIF, and reads its tags, while it opens the image. So a limit of
    the file that is given to it would not hold for them.

    Raises:
        ValueError: Their values have more bytes than the file.
    """
    if IS_BOUND.get():
        here = file.tell()
        size = file.seek(0, 2)
        file.seek(here)
        file = BoundedFile(file, limit_bytes(size + SHARED))  # type: ignore[assignment]
    _load_tags(directory, file)


ImageFileDirectory_v2.load = load_tags  # type: ignore[assignment, method-assign]


def refuse_overlaps(image: Image.Image) -> None:
    """Refuses a TIFF whose strips or tiles lie in each other. Only plain ones are decoded one by one.

    Raises:
        ValueError: They do.
    """
    if not isinstance(image, TiffImageFile):
        return
    bits, end = _count_bits(image), 0
    for _, extents, offset, _ in sorted(image.tile, key=lambda tile: tile[2]):
        left, upper, right, lower = extents or (0, 0, *image.size)
        if offset < end:
            raise ValueError("the strips of this TIFF lie in each other: it is damaged")
        end = offset + (right - left) * (lower - upper) * bits // 8 // SUBSAMPLED


def _count_bits(image: TiffImageFile) -> int:
    """Returns how many bits a pixel of a strip has."""
    bits = image.tag_v2.get(BITSPERSAMPLE, (1,))
    return int(bits[0] if image.tag_v2.get(PLANES) == SEPARATE else sum(bits))
