# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Turns pixels of every mode into RGB of 8 bits.

    gray, palettes, CMYK and so on    as Pillow converts them
    16 and 32 bits                    0 .. 65535 become 0 .. 255, linearly
    12 bits, as a TIFF says           0 .. 4095 become 0 .. 255, linearly
    float                             0 .. 1 become 0 .. 255, linearly
    transparent pixels                are composed on white; their hidden colours are not shown

`white_level` is another value for white, such as 4095 for 12 bits that are stored in 16; what is above becomes white.
In a TIFF whose 0 is white (WhiteIsZero), it is black.
Pixels are converted in strips, so that the memory beside both images stays small.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile


STRIP = 1 << 18  # pixels that are converted at a time
WHITE = {"integer": 65535, "float": 1}
BACKGROUND = (255, 255, 255, 255)
WHITE_IS_ZERO = 0  # the photometric interpretation of a TIFF
TO_BYTES = {"L;2": 85, "L;4": 17, "RGB;16B": 1 / 256}  # what Pillow multiplies the values of such a PNG by


def convert_to_rgb(image: Image.Image, white_level: float | None = None) -> Image.Image:
    """Returns an image in RGB.

    Raises:
        ValueError: values are negative, not finite or, without `white_level`, above white; or they are floats of a TIFF
            whose 0 is white.
    """
    if image.mode == "F" or image.mode == "I" or image.mode.startswith("I;16"):
        return _scale(image, white_level)
    if image.has_transparency_data:
        return _compose_on_white(image)
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def scale_transparent_colour(image: Image.Image) -> None:
    """Makes bytes of the transparent colour of a PNG that is not decoded yet, as Pillow makes of its pixels alone."""
    factor = TO_BYTES.get(str(image.tile[0][3])) if isinstance(image, PngImageFile) and image.tile else None
    colour = image.info.get("transparency")
    if factor is not None and colour is not None:
        values = [int(factor * value) for value in (colour if isinstance(colour, tuple) else [colour])]
        image.info["transparency"] = tuple(values) if isinstance(colour, tuple) else values[0]


def _cut_strips(image: Image.Image) -> Iterator[tuple[tuple[int, int], Image.Image]]:
    """Yields the place of each strip of an image, and the strip."""
    rows = max(STRIP // image.width, 1)
    for top in range(0, image.height, rows):
        yield (0, top), image.crop((0, top, image.width, min(top + rows, image.height)))


def _scale(image: Image.Image, white_level: float | None) -> Image.Image:
    """Returns an image of more than 8 bits with the values of 0 .. white as 0 .. 255."""
    is_inverted, white_level = _is_white_zero(image), white_level or _find_white(image)
    scaled = Image.new("RGB", image.size)
    for place, strip in _cut_strips(image):
        values = np.asarray(strip)
        levels = scale_levels(values, white_level)
        if is_inverted:
            levels = 255 - levels
        if isinstance(transparent := image.info.get("transparency"), int):  # the value of hidden pixels
            levels[values == transparent] = 255
        scaled.paste(Image.fromarray(levels).convert("RGB"), place)
    return scaled


def _is_white_zero(image: Image.Image) -> bool:
    """Returns whether 0 is white in a TIFF of more than 8 bits, which Pillow reads as it is; it inverts 8 bits.

    Raises:
        ValueError: It is one of floats.
    """
    if not isinstance(image, TiffImageFile) or image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) != WHITE_IS_ZERO:
        return False
    if image.mode == "F":
        raise ValueError("0 is white in this TIFF of floats (WhiteIsZero), of which none says what is black: invert it")
    return True


def _find_white(image: Image.Image) -> int | None:
    """Returns the white of a TIFF that says that it has 12 bits, which Pillow reads as they are; None of others."""
    return 4095 if isinstance(image, TiffImageFile) and image.tag_v2.get(BITSPERSAMPLE) == (12,) else None


def scale_levels(values: np.ndarray, white_level: float | None) -> np.ndarray:
    """Returns values of 0 .. white, of more than 8 bits, as bytes of 0 .. 255, in any shape.

    Raises:
        ValueError: values are negative, not finite or, without `white_level`, above white.
    """
    is_float = values.dtype.kind == "f"
    white = white_level or WHITE["float" if is_float else "integer"]
    _check_values(values, white, clips=white_level is not None)
    if is_float:
        return np.round(values * np.float32(255 / white)).clip(max=255).astype(np.uint8)
    return _make_table(white)[values.clip(max=min(65535, np.iinfo(values.dtype).max))]


@cache
def _make_table(white: float) -> np.ndarray:
    """Returns the byte of each level of 16 bits."""
    return np.round(np.arange(65536) * (255 / white)).clip(max=255).astype(np.uint8)


def _check_values(values: np.ndarray, white: float, clips: bool) -> None:
    low, high = values.min(), values.max()
    if not (low >= 0 and (high <= white or (clips and np.isfinite(high)))):  # false for NaN too
        raise ValueError(
            f"{values.dtype} pixels must be finite and lie in 0 .. {white:g}, but lie in {low} .. {high}; a "
            "white_level says what else is white"
        )


def _compose_on_white(image: Image.Image) -> Image.Image:
    """Returns the image as it looks on a white page."""
    page = Image.new("RGB", image.size)
    for place, strip in _cut_strips(image):
        colours = strip.convert("RGBA")
        page.paste(Image.alpha_composite(Image.new("RGBA", strip.size, BACKGROUND), colours).convert("RGB"), place)
    return page
