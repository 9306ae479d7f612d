# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Mixes the student's views by mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899), for the view task.

Each crop of image i is mixed with the same crop of image B - 1 - i of the batch. All images of a batch share the draw
of a crop, as in timm's batch mode. The student's target is the same mixture of the teacher's distributions for the two
unmixed images. (The original, microsoft/esvit, also mixed the teacher's views and ignored the mixture in the region
loss. Here mixing is available for the view task only.)
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.views.draw import CropBox, Draws, make_keyed_generator


class Mixing(NamedTuple):
    """Holds the share of its own image in a crop and, for CutMix, the rectangle that comes from the other image."""

    share: float
    box: CropBox | None


def draw_mixing(generator: np.random.Generator, size: tuple[int, int], mixup: float, cutmix: float) -> Mixing:
    """Draws the mixing of one crop.

    `mixup` and `cutmix` are parameters of beta distributions. If both are positive, each is used half of the time.
    """
    first = generator.random() < 0.5
    if cutmix and (first or not mixup):
        return draw_cutmix(generator, size, generator.beta(cutmix, cutmix))
    return Mixing(generator.beta(mixup, mixup), None)


def draw_cutmix(generator: np.random.Generator, size: tuple[int, int], share: float) -> Mixing:
    """Draws a rectangle of the view's aspect ratio around a random point, clipped at the border.

    The clipped area determines the final share.
    """
    (top, bottom), (left, right) = (
        (max(center - cut // 2, 0), min(center + cut // 2, side))
        for side in size
        for center, cut in [(int(generator.integers(side)), int(side * math.sqrt(1 - share)))]
    )
    box = CropBox(top, left, bottom - top, right - left)
    return Mixing(1 - box.height * box.width / math.prod(size), box)


def draw_mixings(
    groups: list[Tensor], batch: int, *, seed: int, epoch: int, position: int, mixup: float, cutmix: float
) -> list[Mixing]:
    """Draws the mixing of each crop, as a function of (seed, epoch, position of the batch's first image, crop)."""
    sizes = [tuple(group.shape[-2:]) for group in groups for _ in range(len(group) // batch)]
    return [
        draw_mixing(
            make_keyed_generator(seed, epoch, position, crop, draws=Draws.MIXING), (size[0], size[1]), mixup, cutmix
        )
        for crop, size in enumerate(sizes)
    ]


def mix(groups: list[Tensor], mixings: list[Mixing], batch: int) -> tuple[list[Tensor], Tensor]:
    """Returns the mixed groups `[crops * B, 3, h, w]`, as new tensors, and the shares `[crops]` for the loss."""
    drawn = iter(mixings)
    mixed = [torch.cat([mix_crop(views, next(drawn)) for views in group.split(batch)]) for group in groups]
    return mixed, torch.tensor([mixing.share for mixing in mixings], device=groups[0].device)


def mix_crop(views: Tensor, mixing: Mixing) -> Tensor:
    """Mixes one crop of all images `[B, 3, h, w]`; returns the same shape."""
    others = views.flip(0)
    if mixing.box is None:
        return torch.lerp(others, views, mixing.share)
    top, left, height, width = mixing.box
    mixed = views.clone()
    mixed[..., top : top + height, left : left + width] = others[..., top : top + height, left : left + width]
    return mixed
