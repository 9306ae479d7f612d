# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks pairs of views against what can be seen in them: where each place of the first is in the second."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from training.matching.measures import (
    find_regions_at,
    mirror_regions,
)
from training.matching.pairs import CROPS, MIRRORED, PAIRS, RECOLOURED, crop_centre, make_pair


GRID, SIZE = (7, 7), (224, 224)


@pytest.fixture(scope="module")
def photograph():
    import skimage.data

    return Image.fromarray(skimage.data.astronaut()[:, 60:])


def ramps(width: int, height: int) -> Image.Image:
    """Red says how far right, green how far down: where each pixel of a view comes from can be read off."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], axis=2).round().astype(np.uint8))


@pytest.mark.parametrize("number", range(6))
def test_truth_of_crops_shows_the_same_place(number):
    """At the true position the second view has the colours that the first has in the middle of the region."""
    pair, grid = make_pair(CROPS, ramps(500, 380), 224, 0, number), (14, 14)
    truth = pair.locate_regions(grid)
    known = truth[:, 0].isfinite()
    assert 40 < known.sum() < 196 or pair.places[0].box == pair.places[1].box
    own = torch.arange(196)
    x, y = (own % 14 + 0.5) * 16, (own // 14 + 0.5) * 16
    first, second = (torch.from_numpy(view).float() for view in pair.views)
    here = first[y[known].long(), x[known].long()]
    there = second[truth[known, 1].long(), truth[known, 0].long()]
    assert (here - there).abs().max() <= 4


def test_mirrored_pair(photograph):
    pair = make_pair(MIRRORED, photograph, 224, 0, 3)
    first, second = pair.views
    assert (second == second[..., :1]).all() and not (first == first[..., :1]).all()
    correlation = np.corrcoef(first.mean(axis=2).ravel(), second[:, ::-1, 0].ravel())[0, 1]
    assert correlation > 0.95 > 0.7 > np.corrcoef(first.mean(axis=2).ravel(), second[..., 0].ravel())[0, 1]
    truth = pair.locate_regions(GRID)
    assert torch.equal(find_regions_at(truth, GRID, SIZE), mirror_regions(GRID))
    resized = F.center_crop(F.resize(photograph, 256, interpolation=F.InterpolationMode.BICUBIC), [224, 224])
    assert np.array_equal(first, np.array(resized))  # the evaluation transform
    jittered = [grey_difference(make_pair(MIRRORED, photograph, 64, 0, number)) > 1 for number in range(100)]
    assert 68 <= sum(jittered) <= 92  # probability 0.8


def grey_difference(pair) -> float:
    """Mean difference of levels between the first view in grey and the second, mirrored back."""
    first = np.array(Image.fromarray(pair.views[0]).convert("L")).astype(float)
    return np.abs(first - pair.views[1][:, ::-1, 0]).mean()


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_depend_on_seed_and_number_alone(name, photograph):
    def views(seed, number):
        return np.stack(make_pair(name, photograph, 64, seed, number).views)

    first = views(0, 5)
    assert np.array_equal(first, views(0, 5))
    others = [views(0, number) for number in range(6, 12)] + [views(1, 5)]
    assert sum(not np.array_equal(first, other) for other in others) >= 5
    assert first.shape == (2, 64, 64, 3)


def test_recoloured_crops_are_other_crops_with_other_colours(photograph):
    plain, recoloured = (make_pair(name, photograph, 64, 0, 1) for name in (CROPS, RECOLOURED))
    assert not plain.places[0].jitter and not plain.places[0].blur_radius and recoloured.places[0].blur_radius
    assert plain.places[0].box != recoloured.places[0].box


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (37, 20), (225, 224)])
def test_images_of_any_shape(size):
    for name in PAIRS:
        assert all(view.shape == (64, 64, 3) for view in make_pair(name, ramps(*size), 64, 0, 0).views)
    assert crop_centre(ramps(*size), 50).shape == (50, 50, 3)
