# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Applies timm's operations of RandAugment (arXiv 1909.13719) with Pillow, for the policy `deit`.

`draw.py` draws the operations; nothing here draws. Geometric operations resample bicubically and fill pixels from
outside of the view with ImageNet's mean colour.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from training.views.draw import Operation


FILL = (124, 116, 104)
SOLARIZE_ADD_BELOW = 128


def transform(view: np.ndarray, operation: Operation, argument: float) -> np.ndarray:
    """Applies one operation to uint8 `[h, w, 3]`; returns the same type and shape."""
    return np.asarray(OPERATIONS[operation](Image.fromarray(view), argument))


# Of (argument, (height, width)): the rows of the matrix that maps pixels of the result to pixels of the input.
AFFINE: dict[Operation, Callable[[float, tuple[int, int]], tuple[float, ...]]] = {
    Operation.SHEAR_X: lambda factor, _: (1, factor, 0, 0, 1, 0),
    Operation.SHEAR_Y: lambda factor, _: (1, 0, 0, factor, 1, 0),
    Operation.TRANSLATE_X: lambda share, size: (1, 0, share * size[1], 0, 1, 0),
    Operation.TRANSLATE_Y: lambda share, size: (1, 0, 0, 0, 1, share * size[0]),
}


def affine(operation: Operation, image: Image.Image, argument: float) -> Image.Image:
    matrix = AFFINE[operation](argument, (image.height, image.width))
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=FILL
    )


def map_levels(image: Image.Image, table: np.ndarray) -> Image.Image:
    return image.point(table.clip(0, 255).astype(int).tolist() * 3)


def posterize(image: Image.Image, bits: float) -> Image.Image:
    """Keeps only the upper `bits` bits of each level; with 0 bits the image becomes black."""
    return map_levels(image, np.arange(256) & ~(2 ** (8 - int(bits)) - 1))


def solarize_add(image: Image.Image, addend: float) -> Image.Image:
    levels = np.arange(256)
    return map_levels(image, np.where(levels < SOLARIZE_ADD_BELOW, levels + addend, levels))


OPERATIONS: dict[Operation, Callable[[Image.Image, float], Image.Image]] = {
    Operation.AUTO_CONTRAST: lambda image, _: ImageOps.autocontrast(image),
    Operation.EQUALIZE: lambda image, _: ImageOps.equalize(image),
    Operation.INVERT: lambda image, _: ImageOps.invert(image),
    Operation.ROTATE: lambda image, degrees: image.rotate(degrees, resample=Image.Resampling.BICUBIC, fillcolor=FILL),
    Operation.POSTERIZE: posterize,
    Operation.SOLARIZE: lambda image, threshold: ImageOps.solarize(image, int(threshold)),
    Operation.SOLARIZE_ADD: solarize_add,
    Operation.COLOR: lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    Operation.CONTRAST: lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    Operation.BRIGHTNESS: lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    Operation.SHARPNESS: lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
    **{operation: partial(affine, operation) for operation in AFFINE},
}


def find_matrix(operation: Operation, argument: float, size: tuple[int, int]) -> np.ndarray:
    """Returns the matrix `[3, 3]` that maps points (x, y, 1) of the result of an operation to points of its input.

    `size` is the height and width of both. Operations that move no pixels have the identity.
    """
    if operation == Operation.ROTATE:
        return find_rotation(argument, size)
    rows = AFFINE[operation](argument, size) if operation in AFFINE else (1, 0, 0, 0, 1, 0)
    return np.array([rows[:3], rows[3:], (0, 0, 1)], dtype=np.float64)


def find_rotation(degrees: float, size: tuple[int, int]) -> np.ndarray:
    """Returns the matrix of Pillow's `rotate` around the middle, counterclockwise as one sees the image."""
    x, y, angle = size[1] / 2, size[0] / 2, math.radians(degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array(
        [[cosine, -sine, x - cosine * x + sine * y], [sine, cosine, y - sine * x - cosine * y], [0.0, 0.0, 1.0]]
    )
