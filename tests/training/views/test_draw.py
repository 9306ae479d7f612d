# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Multi-crop views: keyed draws and their distributions."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import RandomErasing, RandomResizedCrop, v2

from training.views.draw import (
    POLICIES,
    Draws,
    Jitter,
    Operation,
    ViewKey,
    ViewOptionError,
    ViewOptions,
    draw_box,
    draw_crop,
    draw_views,
    make_keyed_generator,
    make_noise,
)


OPTIONS = ViewOptions(global_crop_size=32, local_crop_sizes=(16,), local_crops_numbers=(3,))


def draw_many(number, recipe, image_size=(500, 375)):
    return [draw_crop(make_keyed_generator(3, 1, position), image_size, recipe) for position in range(number)]


# -- keys --------------------------------------------------------------------------------------------------------------


SIZE = (80, 60)


def test_draws_are_a_function_of_the_key_alone():
    keys = [ViewKey(*key) for key in itertools.product((0, 1), (0, 1), (0, 1, 2**40))]
    torch.manual_seed(0)
    first = {key: draw_views(key, SIZE, OPTIONS) for key in keys}
    torch.manual_seed(1)
    np.random.seed(1)
    assert {key: draw_views(key, SIZE, OPTIONS) for key in reversed(keys)} == first
    for a, b in itertools.combinations(keys, 2):
        assert first[a] != first[b]


def test_a_crop_does_not_depend_on_the_other_crops():
    fewer = ViewOptions(global_crop_size=32, local_crop_sizes=(), local_crops_numbers=())
    key = ViewKey(0, 0, 5)
    assert draw_views(key, SIZE, fewer) == draw_views(key, SIZE, OPTIONS)[:2]


def test_no_two_keys_share_a_stream():
    """Streams are disjoint if their (key, counter) differ above the counter's lowest word, which the draws count up."""
    keys = itertools.product((0, 1, 2), (0, 1, 2), (0, 1, 2), (0, 1, 2), Draws)
    starts = set()
    for seed, epoch, position, crop, draws in keys:
        state = make_keyed_generator(seed, epoch, position, crop, draws=draws).bit_generator.state["state"]
        assert state["counter"][0] == 0
        starts.add((*state["key"].tolist(), *state["counter"].tolist()))
    assert len(starts) == 3**4 * len(Draws)


# -- distributions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [(0.4, 1.0), (0.05, 0.4)])
@pytest.mark.parametrize("image_size", [(500, 375), (100, 300)])  # the second often needs several tries
def test_boxes_are_distributed_as_torchvisions(image_size, scale):
    generator = make_keyed_generator(7, 0)
    ours = np.array([draw_box(generator, image_size, scale) for _ in range(1500)])
    torch.manual_seed(0)
    picture = torch.empty(3, image_size[1], image_size[0])
    theirs = np.array([RandomResizedCrop.get_params(picture, scale, (3 / 4, 4 / 3)) for _ in range(1500)])
    for ours_, theirs_ in [
        *zip(ours.T, theirs.T, strict=True),
        (ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]),
        (ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3]),
    ]:
        assert stats.ks_2samp(ours_, theirs_).pvalue > 1e-3


@pytest.mark.parametrize("image_size", [(1000, 20), (20, 1000), (1, 1), (3, 200)])
def test_images_that_no_draw_fits_get_torchvisions_central_box(image_size):
    picture = torch.empty(3, image_size[1], image_size[0])
    theirs = RandomResizedCrop.get_params(picture, (0.9, 1.0), (3 / 4, 4 / 3))
    assert draw_box(make_keyed_generator(0, 0), image_size, (0.9, 1.0)) == theirs


@pytest.mark.parametrize("policy, strengths", [("dino", (0.4, 0.4, 0.2, 0.1)), ("mocov2", (0.4, 0.4, 0.4, 0.1))])
def test_jitter_is_distributed_as_torchvisions(policy, strengths):
    recipe = dataclasses.replace(OPTIONS, augmentation=policy).groups[0][0]
    jitters = [crop.jitter for crop in draw_many(4000, recipe) if crop.jitter]
    assert stats.binomtest(len(jitters), 4000, 0.8).pvalue > 1e-3

    orders, counts = np.unique(
        [[operation for operation, _ in jitter] for jitter in jitters], axis=0, return_counts=True
    )
    assert len(orders) == math.factorial(4)
    assert stats.chisquare(counts).pvalue > 1e-3

    torch.manual_seed(0)
    torchvision_jitter = v2.ColorJitter(*strengths)
    theirs = [torchvision_jitter.make_params([]) for _ in range(2000)]
    for operation in Jitter:
        ours_ = [dict(jitter)[operation] for jitter in jitters]
        theirs_ = [params[f"{operation.name.lower()}_factor"] for params in theirs]
        assert stats.ks_2samp(ours_, theirs_).pvalue > 1e-3


# Of each policy and kind of crop: jitter, grayscale, blur, solarize.
PROBABILITIES = {
    "dino": [(0.8, 0.2, 1.0, 0.0), (0.8, 0.2, 0.1, 0.2), (0.8, 0.2, 0.5, 0.0)],
    "mocov2": [(0.8, 0.2, 0.5, 0.0)] * 3,
    "basic": [(0.0, 0.0, 0.0, 0.0)] * 3,
    "deit": [(0.0, 0.0, 0.0, 0.0)] * 3,
}


@pytest.mark.parametrize("policy", POLICIES)
def test_probabilities_of_the_policies(policy):
    (global_1, global_2), (local, *_) = dataclasses.replace(OPTIONS, augmentation=policy).groups
    recipes = (global_1, global_2, local)
    for recipe, (jitter, grayscale, blur, solarize) in zip(recipes, PROBABILITIES[policy], strict=True):
        crops = draw_many(3000, recipe)
        blurs = [crop.blur_radius for crop in crops if crop.blur_radius > 0]
        for number, probability in [
            (sum(crop.flip for crop in crops), 0.5),
            (sum(bool(crop.jitter) for crop in crops), jitter),
            (sum(crop.grayscale for crop in crops), grayscale),
            (sum(crop.solarize for crop in crops), solarize),
            (len(blurs), blur),
        ]:
            assert stats.binomtest(number, len(crops), probability).pvalue > 1e-3
        if blurs:
            assert stats.kstest(blurs, stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3


def test_policies_share_boxes_and_flips():
    drawn = [draw_views(ViewKey(0, 0, 3), SIZE, dataclasses.replace(OPTIONS, augmentation=name)) for name in POLICIES]
    assert len({tuple((crop.box, crop.flip) for crop in crops) for crops in drawn}) == 1
    assert len({tuple(crops) for crops in drawn}) == len(POLICIES)


def test_operations_of_rand_augment():
    recipe = dataclasses.replace(OPTIONS, augmentation="deit").groups[0][0]
    crops = draw_many(3000, recipe)
    drawn = [applied for crop in crops for applied in crop.operations]
    assert stats.binomtest(len(drawn), 2 * len(crops), 0.5).pvalue > 1e-3
    assert stats.chisquare([sum(operation == other for operation, _ in drawn) for other in Operation]).pvalue > 1e-3
    assert any(len(crop.operations) == 2 and len(set(crop.operations)) == 2 for crop in crops)
    magnitudes = stats.norm(0.9, 0.05)
    for operation, factor in [
        (Operation.ROTATE, 30),
        *((Operation.SHEAR_X, 0.3), (Operation.SHEAR_Y, 0.3)),
        *((Operation.TRANSLATE_X, 0.45), (Operation.TRANSLATE_Y, 0.45)),
    ]:
        arguments = np.array([argument for other, argument in drawn if other == operation]) / factor
        assert stats.binomtest(int((arguments > 0).sum()), len(arguments), 0.5).pvalue > 1e-3
        inside = np.abs(arguments)[np.abs(arguments) < 1]
        assert stats.kstest(inside, lambda x: magnitudes.cdf(x) / magnitudes.cdf(1)).pvalue > 1e-3
    assert {argument for other, argument in drawn if other == Operation.POSTERIZE} <= {0, 1, 2}
    factors = [argument for other, argument in drawn if other == Operation.COLOR]
    assert min(factors) >= 0.1 and 1.5 < max(factors) <= 1.9


def test_erased_rectangles():
    recipe = dataclasses.replace(OPTIONS, augmentation="deit").groups[0][0]._replace(size=(200, 160))
    crops = draw_many(2500, recipe)
    boxes = np.array([crop.erased.box for crop in crops if crop.erased is not None])
    assert stats.binomtest(len(boxes), len(crops), 0.25).pvalue > 1e-3
    torch.manual_seed(0)
    picture = torch.zeros(3, 200, 160)
    theirs = [RandomErasing.get_params(picture, (0.02, 1 / 3), (0.3, 1 / 0.3), value=[0.0])[:4] for _ in range(1000)]
    for ours_, theirs_ in zip(boxes.T, np.array(theirs).T, strict=True):
        assert stats.ks_2samp(ours_, theirs_).pvalue > 1e-3
    erased = [crop.erased for crop in crops if crop.erased is not None]
    assert len({rectangle.key for rectangle in erased}) == len(erased)
    assert stats.kstest(make_noise(erased[0]).ravel(), stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    "wrong",
    [
        {"local_crop_sizes": (96, 48)},
        {"local_crops_numbers": (-1,)},
        {"global_crop_size": 0},
        {"local_crop_sizes": ((96, 0),)},
        {"global_crops_scale": (0.0, 1.0)},
        {"local_crops_scale": (0.4, 0.05)},
        {"global_crops_scale": (0.4, 1.1)},
        {"augmentation": "simclr"},
    ],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ViewOptionError):
        ViewOptions(**wrong)
