# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Prepares images for a model as its image processor does, at the cost of what the model sees of them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from PIL import Image
from torch import Tensor


WARPED_FROM = 384  # pixels; the size from which on the processors of ConvNeXT warp an image, instead of cropping it
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


def crops_middle(processor: Any) -> bool:
    """Returns whether an image processor resizes an image in its proportions, and then crops it.

    Those of ConvNeXT, which ResNets have too, do so for small sizes, with no option that says it.
    """
    side = dict(getattr(processor, "size", None) or {}).get("shortest_edge")
    has_share = getattr(processor, "crop_pct", None) is not None
    return bool(getattr(processor, "do_center_crop", False)) or (has_share and side is not None and side < WARPED_FROM)


def describe_processing(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of an image processor, those of its own bookkeeping left out, as JSON can hold them."""
    return {key: value for key, value in sorted(settings.items()) if not key.startswith("_")}


def find_size(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Returns height and width of what an image processor with these settings makes of any image.

    Raises:
        KeyError: it makes images of several sizes, or does not say of which.
    """
    size = settings["crop_size"] if settings.get("do_center_crop") else settings["size"]
    if settings.get("crop_pct") is not None and "shortest_edge" in size:  # as of ConvNeXT, which warps or crops
        return size["shortest_edge"], size["shortest_edge"]
    return size["height"], size["width"]


def change_size(processor: Any, side: int) -> None:
    """Makes an image processor produce images of `side` pixels, cutting off the same share at the borders as before."""
    crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    if crop is not None:
        processor.size = {name: round(value * side / crop["height"]) for name, value in dict(processor.size).items()}
        processor.crop_size = {"height": side, "width": side}
    elif getattr(processor, "crop_pct", None) is not None:  # of ConvNeXT, which knows no other size
        processor.size = {"shortest_edge": side}
    else:
        processor.size = {"height": side, "width": side}


def _transform(image: Image.Image, processor: Any) -> Tensor:
    image = cut_middle(image) if crops_middle(processor) else image
    return processor(image, return_tensors="pt")["pixel_values"][0]
