# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The regions that any frozen model sees, as a grid over the image: of this project, of transformers and of timm."""

import math
from typing import Any

import torch
from torch import Tensor

from modeling_esvit.analysis.token_places import any_size
from training.features.frozen_models import FrozenModelError, TimmModel


Grid = tuple[int, int]  # rows, columns
Size = tuple[int, int]  # height, width

MOST_EXTRA_TOKENS = 8  # of classes, of distillation, and registers, before those of the regions


class RegionGridError(FrozenModelError):
    """The model's tokens are not a grid of square regions over the image."""


def grid_of(tokens: int, size: Size) -> tuple[int, Grid]:
    """How many of so many tokens are not regions, and the rows and columns of the others over an image of `size`.

    Square regions of whole pixels cover it, and as many tokens as possible are regions.

    Raises:
        RegionGridError: no such grid exists.
    """
    height, width = size
    for extra in range(min(MOST_EXTRA_TOKENS + 1, tokens)):
        side = max(1, round(math.sqrt(height * width / (tokens - extra))))
        rows, columns = height // side, width // side
        if height == rows * side and width == columns * side and rows * columns == tokens - extra:
            return extra, (rows, columns)
    raise RegionGridError(
        f"the model gives {tokens} tokens for an image of {height} x {width} pixels, which is no grid of square "
        "regions: choose a size that its stride divides"
    )


def hidden_state(model: Any, pixels: Tensor) -> Tensor:
    """[B, T, C], or [B, C, h, w].

    Raises:
        RegionGridError: the model gives none.
    """
    if isinstance(model, TimmModel):
        return model.regions(pixels)
    hidden = getattr(model(pixels, **any_size(model)), "last_hidden_state", None)
    if hidden is None:
        raise RegionGridError(f"{type(model).__name__} gives no last_hidden_state: choose a model that does")
    return hidden


@torch.no_grad()
def region_features(model: Any, pixels: Tensor) -> tuple[Tensor, Grid]:
    """Regions [B, T, C] of pixel values [B, 3, H, W], row by row, float32 on the model's device; rows and columns.

    The model runs in the mode it is in.

    Raises:
        RegionGridError: its tokens are not a grid over the image.
    """
    hidden = hidden_state(model, pixels.to(model.device, model.dtype)).float()
    if hidden.ndim == 4:
        return hidden.flatten(2).transpose(1, 2), (hidden.shape[2], hidden.shape[3])
    extra, grid = grid_of(hidden.shape[1], (pixels.shape[2], pixels.shape[3]))
    return hidden[:, extra:], grid


def region_side(model: Any, image_side: int) -> int:
    """Pixels a side of a region in square images of `image_side`, which the model is made for."""
    _, (rows, _) = region_features(model, torch.zeros(1, 3, image_side, image_side))
    return image_side // rows
