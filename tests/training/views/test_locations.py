# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks matches by location against their definition, in exact fractions where a crop is a box and a flip."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from modeling_esvit import EsViTConfig
from modeling_esvit.analysis.token_places import TokenPlaces, stage_places
from training.matching.measures import mirror_regions
from training.views.draw import CropBox, CropParameters, Operation, ViewKey, ViewOptions, draw_views
from training.views.locations import OUTSIDE, RegionLocator, find_shown, make_locator, map_to_image
from training.views.rand_augment import transform


CONFIGS = {
    "swin": EsViTConfig(image_size=64, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 1, 2], window_size=4),
    "cvt": EsViTConfig.from_architecture("cvt-tiny"),
    "vil": EsViTConfig.from_architecture("vil-tiny"),
    "vit": EsViTConfig.from_architecture("deit-tiny"),
    "resnet": EsViTConfig.from_architecture("resnet-50"),
}
OPTIONS = ViewOptions(
    global_crop_size=(64, 96), local_crop_sizes=(40, (33, 56)), local_crops_numbers=(2, 1), augmentation="basic"
)


def find_centre(axis: torch.Tensor, index: int) -> Fraction:
    """Returns the middle of the pixels of an axis that belong to a row or column of tokens."""
    pixels = [pixel for pixel, token in enumerate(axis.tolist()) if token == index]
    return Fraction(sum(pixels), len(pixels)) + Fraction(1, 2)


def project(at: Fraction, start: int, length: int, pixels: int, flip: bool) -> Fraction:
    """Maps a pixel of a view to the image."""
    return start + (pixels - at if flip else at) * Fraction(length, pixels)


def unproject(at: Fraction, start: int, length: int, pixels: int, flip: bool) -> Fraction:
    found = (at - start) * Fraction(pixels, length)
    return pixels - found if flip else found


def locate_by_definition(crop: CropParameters, view: CropParameters, own: TokenPlaces, seen: TokenPlaces) -> list[int]:
    """Returns the region of `view` at the centre of each region of `crop`; None where it is on a border of regions."""
    found = []
    for token in range(own.grid[0] * own.grid[1]):
        row, column = divmod(token, own.grid[1])
        y = project(find_centre(own.rows, row), crop.box.top, crop.box.height, crop.size[0], False)
        x = project(find_centre(own.columns, column), crop.box.left, crop.box.width, crop.size[1], crop.flip)
        y = unproject(y, view.box.top, view.box.height, view.size[0], False)
        x = unproject(x, view.box.left, view.box.width, view.size[1], view.flip)
        if x.denominator == 1 or y.denominator == 1:
            found.append(None)  # exactly between two pixels: either is right
        elif 0 <= x < view.size[1] and 0 <= y < view.size[0]:
            cell = int(seen.rows[math.floor(y)]), int(seen.columns[math.floor(x)])
            found.append(cell[0] * seen.grid[1] + cell[1] if min(cell) >= 0 else OUTSIDE)
        else:
            found.append(OUTSIDE)
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_against_the_definition(name):
    """Random boxes and flips in images of many sizes, rectangular crops, maps that are cut at the end."""
    locator, checked = make_locator(CONFIGS[name], OPTIONS), 0
    sizes = [(97, 61), (640, 427), (3000, 200), (64, 64)]
    drawn = [draw_views(ViewKey(0, 0, number), size, OPTIONS) for number, size in enumerate(sizes * 2)]
    located = locator.locate(drawn)
    for crops, found in zip(drawn, located.tolist(), strict=True):
        own = [stage_places(CONFIGS[name], crop.size)[-1] for crop in crops]
        for view in (0, 1):
            expected = [
                region
                for crop, places in zip(crops, own, strict=True)
                for region in locate_by_definition(crop, crops[view], places, own[view])
            ]
            pairs = [(one, other[view]) for one, other in zip(expected, found, strict=True) if one is not None]
            assert [one for one, _ in pairs] == [other for _, other in pairs]
            checked += sum(one != OUTSIDE for one, _ in pairs)
    assert located.dtype == torch.int64 and checked > 30


def make_crop(box: CropBox, flip: bool, size=(64, 64)) -> CropParameters:
    return CropParameters(size, box, flip, jitter=(), grayscale=False, blur_radius=0.0, solarize=False)


def test_equal_mirrored_and_distant_crops():
    places = stage_places(CONFIGS["swin"], (64, 64))[-1]  # 4 x 4
    box, away = CropBox(3, 5, 50, 70), CropBox(60, 100, 20, 20)
    crops = [make_crop(box, False), make_crop(box, True), make_crop(away, False)]
    [found] = RegionLocator([(2, places), (1, places)]).locate([crops])
    same, mirrored, outside = torch.arange(16), mirror_regions((4, 4)), torch.full((16,), OUTSIDE)
    assert torch.equal(found[:, 0], torch.cat([same, mirrored, outside]))
    assert torch.equal(found[:, 1], torch.cat([mirrored, same, outside]))


@pytest.mark.parametrize(
    "operations",
    [
        [(Operation.ROTATE, 20.0)],
        [(Operation.SHEAR_X, 0.2), (Operation.ROTATE, -15.0)],
        [(Operation.SHEAR_Y, -0.2), (Operation.TRANSLATE_X, 0.2)],
        [(Operation.TRANSLATE_Y, -0.3), (Operation.SOLARIZE, 256.0)],
    ],
)
def test_operations_that_move_pixels(operations):
    """Each pixel shows the place of the image that the matrix says: red and green are x and y before the operations."""
    size, margin = (60, 80), 2
    y, x = np.mgrid[: size[0], : size[1]]
    view = np.stack([2 * x, 2 * y, np.full_like(x, 255)], axis=2).astype(np.uint8)
    crop = replace(make_crop(CropBox(0, 0, *size), False, size), operations=tuple(operations))
    for operation, argument in operations:
        view = transform(view, operation, argument)
    points = np.stack([x + 0.5, y + 0.5, np.ones(size)], axis=-1) @ map_to_image(crop).T
    filled = view[..., 2] < 255
    seen = find_shown(np.stack([x + 0.5, y + 0.5, np.ones(size)], axis=-1), crop)
    edge = np.abs(points[..., :2]).min(axis=-1) < margin
    edge |= np.abs(points[..., :2] - size[::-1]).min(axis=-1) < margin
    assert (seen == ~filled)[~edge].mean() > 0.99 and filled.any()
    inside = ~filled & ~edge
    assert inside.sum() > 1000 and np.abs(view[..., :2] / 2 + 0.5 - points[..., :2])[inside].max() < 1
