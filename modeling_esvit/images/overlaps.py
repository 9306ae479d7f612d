# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Refuses images whose file says the same bytes again and again, as no program writes them.

Pillow reads the values of all tags of a TIFF, or of what a camera noted, and decodes all of its strips, one after the
other. Where thousands of them are the same bytes, a small file takes gigabytes, or hours.
"""

from typing import IO, Any

from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, ImageFileDirectory_v2, TiffImageFile

from modeling_esvit.images.memory import PLANES, SEPARATE


SHARED = 2**16  # bytes that tags may share, as some programs store two equal values once
SUBSAMPLED = 2  # a strip may have this part of its bytes, if colours are stored at half of the size

_load_tags = ImageFileDirectory_v2.load


class BoundedFile:
    """Wraps a file of which no more may be read than it has."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, here = file, file.tell()
        self.left = file.seek(0, 2) + SHARED
        file.seek(here)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def read(self, size: int = -1) -> bytes:
        content = self.file.read(size)
        self.left -= len(content)
        if self.left < 0:
            raise ValueError("the values of its tags lie in each other: it is damaged")
        return content


def load_tags(directory: ImageFileDirectory_v2, file: IO[bytes]) -> None:
    """Loads the tags of a directory as Pillow does, which has no limit of its own.

    Raises:
        ValueError: Their values have more bytes than the file.
    """
    _load_tags(directory, BoundedFile(file))  # type: ignore[arg-type]


ImageFileDirectory_v2.load = load_tags  # type: ignore[assignment, method-assign]  # also called where Pillow opens a JPEG


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
