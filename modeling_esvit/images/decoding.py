# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Decodes a record into an RGB image, with one typed error for everything that can be wrong with a file."""

import functools
import hashlib
from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from modeling_esvit.errors import EsViTError


# Formats that Pillow recognises but has no decoder for, or that it hands to another program (Ghostscript).
UNDECODED_FORMATS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# What Pillow's decoders were seen to raise on files with bytes changed or cut off, in all formats that it can write.
DECODING_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    SyntaxError,
    Image.DecompressionBombError,
)


WidthHeight = tuple[int, int]  # the order of Pillow; elsewhere a Size is height, width


class UnreadableImageError(EsViTError, OSError):
    """Raised when an image cannot be turned into RGB pixels; the message names it and says why."""


class Record(NamedTuple):
    """Holds one undecoded image."""

    image: bytes | str  # the encoded file, or the path of it
    label: int | None
    name: str | None  # None: only its content tells it apart

    def identity(self) -> str:
        """Returns a name that is the same in every epoch and process."""
        if self.name is not None:
            return self.name
        return self.image if isinstance(self.image, str) else f"image {hashlib.sha256(self.image).hexdigest()[:16]}"


def decode(record: Record, sufficient: Callable[[WidthHeight], WidthHeight] = lambda size: size) -> Image.Image:
    """Returns the RGB image of a record. The EXIF orientation is not applied, as in the original.

    16-bit gray becomes 8-bit by scaling. Float pixels must be finite and lie in 0 .. 1.

    `sufficient` takes the (width, height) of the file and returns the smallest size that is large enough. A JPEG is
    then decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size that is at least that large.

    Raises:
        UnreadableImageError: not an image, truncated, damaged, too large to be safe, or pixels without a meaning.
    """
    try:
        file = BytesIO(record.image) if isinstance(record.image, bytes) else record.image
        with Image.open(file, formats=list_image_formats()) as image:
            image.draft(None, sufficient(image.size))
            return _to_rgb(image)
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"{record.identity()}: not an image in a format that Pillow decodes") from error
    except DECODING_ERRORS as error:
        raise UnreadableImageError(f"{record.identity()}: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _scale_to_8_bit(np.asarray(image), white=65535)
    if image.mode == "F":
        return _scale_to_8_bit(np.asarray(image), white=1)
    return image.convert("RGB")


def _scale_to_8_bit(pixels: np.ndarray, white: int) -> Image.Image:
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= white):  # false for NaN too
        raise ValueError(f"{pixels.dtype} pixels must be finite and lie in 0 .. {white}, but lie in {low} .. {high}")
    return Image.fromarray(np.round(pixels * (255 / white)).astype(np.uint8)).convert("RGB")


@functools.cache
def list_image_formats() -> list[str]:
    """Returns Pillow's names of the formats that it decodes by itself."""
    Image.init()
    return [name for name in Image.ID if name not in UNDECODED_FORMATS]


@functools.cache
def list_image_extensions() -> frozenset[str]:
    """Returns the file extensions of `list_image_formats()`: lower case, with the dot."""
    extensions = Image.registered_extensions()
    return frozenset(extension for extension, name in extensions.items() if name in list_image_formats())
