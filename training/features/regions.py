# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Returns the regions that any frozen model sees, of this project, of transformers or of timm, and where they lie."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from modeling_esvit.analysis.token_places import TokenPlaces, TokenPlacesError, regions_of
from modeling_esvit.embed.compiling import BatchForward
from training.features.frozen_models import FrozenModel, TimmModel


Grid = tuple[int, int]  # rows, columns


@torch.no_grad()
def compute_region_features(model: Any, pixels: Tensor) -> tuple[Tensor, TokenPlaces]:
    """Returns regions `[B, T, C]` of pixel values `[B, 3, H, W]`, row by row, float32 on the model's device, and where
    they lie. The model runs in the mode it is in.

    Raises:
        TokenPlacesError: its output has no regions whose place is known.
        FrozenModelError: a model of timm refuses the images.
    """
    pixels = pixels.to(model.device, model.dtype)
    features, places = model.regions(pixels) if isinstance(model, TimmModel) else regions_of(model, pixels)
    return features.float(), places


def make_region_forward(model: FrozenModel) -> BatchForward:
    """Returns what computes the regions `[B, T, C]` of batches, and compiles as the model does for its features."""
    return BatchForward(model.model, partial(compute_only_regions, model.model), model.forward.mode)


def compute_only_regions(model: Any, pixels: Tensor) -> list[Tensor]:
    """Returns the regions as the only output; see [`compute_region_features`]."""
    return [compute_region_features(model, pixels)[0]]


def find_even_grid(places: TokenPlaces, option: str = "--image_size {0}") -> Grid:
    """Returns rows and columns of regions that divide the image evenly, as measures in units of regions need them.

    Args:
        option: how a command sets height {0} and width {1} of the image, for the error.

    Raises:
        TokenPlacesError: some regions are cropped or padded.
    """
    if places.divides_evenly:
        return places.grid
    (height, width), (rows, columns) = places.size, places.grid
    raise TokenPlacesError(
        f"The model's {rows} x {columns} regions do not divide an image of {height} x {width} pixels evenly, so "
        f"there is no grid of square regions: choose a size that its stride of {places.step[0]} pixels divides, as by "
        f"{option.format(*round_up(places))}."
    )


def round_up(places: TokenPlaces) -> tuple[int, int]:
    """Returns height and width of the next larger image that regions divide evenly."""
    height, width = (math.ceil(pixels / step) * step for pixels, step in zip(places.size, places.step, strict=True))
    return int(height), int(width)


def find_even_side(model: Any, side: int) -> int:
    """Returns `side`, or the next larger side in pixels of square images that the model's regions divide evenly."""
    _, places = compute_region_features(model, torch.zeros(1, 3, side, side))
    return side if places.divides_evenly else max(round_up(places))


def compute_region_side(model: Any, image_side: int) -> int:
    """Returns the whole pixels from region to region in square images of `image_side` pixels."""
    _, places = compute_region_features(model, torch.zeros(1, 3, image_side, image_side))
    return int(places.step[0])
