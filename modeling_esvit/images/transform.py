# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Prepares images for a model as its image processor does, at the cost of what the model sees of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from PIL import Image
from torch import Tensor


LONGEST = 16  # times its shorter side: what is longer is cut before it is resized

Transform = Callable[[Image.Image], Tensor]  # RGB image of any size -> float [3, H, W], always of one size


def cut_middle(image: Image.Image) -> Image.Image:
    """Returns what a centre crop sees of an image longer than LONGEST times its shorter side; others as they are.

    A line of pixels, resized until its shorter side is 256, would not fit into memory.
    """
    width, height = (min(side, LONGEST * min(image.size)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image if (width, height) == image.size else image.crop((left, top, left + width, top + height))


def make_evaluation_transform(processor: Any) -> Transform:
    """Returns what an image processor of transformers does with one image."""
    return partial(_transform, processor=processor)


def _transform(image: Image.Image, processor: Any) -> Tensor:
    image = cut_middle(image) if getattr(processor, "do_center_crop", False) else image
    return processor(image, return_tensors="pt")["pixel_values"][0]
