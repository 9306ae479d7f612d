# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes images of arrays of pixels."""

import numpy as np
from PIL import Image

from modeling_esvit.images.rgb import scale_levels


Pixels = Image.Image | np.ndarray  # an image in memory

CHANNELS = {1: "grey", 3: "RGB", 4: "RGB and opacity"}


def is_image_array(value: object) -> bool:
    """Returns whether a value is the array of one image, not of several."""
    return isinstance(value, np.ndarray) and value.ndim in (2, 3) and value.dtype.kind in "buif"


def convert_array(array: np.ndarray, white_level: float | None = None) -> Image.Image:
    """Returns the image of an array `[H, W]`, `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]`.

    Bytes are 0 .. 255, 16 bits 0 .. 65535 and floats 0 .. 1, unless `white_level` says what is white; of booleans,
    true is. Wider integers need it: they may hold bytes as well as 16 bits.

    Raises:
        ValueError: it has another shape, or values that are none of these.
    """
    if not isinstance(array, np.ndarray):
        raise ValueError(
            f"an image is a path, a PIL image, an array or the bytes of a file, not a {type(array).__name__}"
        )
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in CHANNELS or not array.size:
        first = array.ndim == 3 and array.shape[0] in CHANNELS
        advice = "; move its channels to the end: array.transpose(1, 2, 0)" if first else ""
        raise ValueError(f"an image is an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], not {array.shape}{advice}")
    if not (
        array.dtype.kind in "bf" or array.dtype in (np.uint8, np.uint16) or (white_level and array.dtype.kind in "ui")
    ):
        raise ValueError(f"an image is an array of uint8, uint16, bool or floats, not of {array.dtype}; convert it")
    if array.dtype == np.bool_:
        levels = array * np.uint8(255)
    else:
        levels = array if array.dtype == np.uint8 else scale_levels(array, white_level)
    return Image.fromarray(np.ascontiguousarray(levels[..., 0] if levels.shape[2] == 1 else levels))
