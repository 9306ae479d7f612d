# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Multi-crop views: keyed draws, their distributions, and pixels equal to torchvision's own transforms."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy import stats
from torchvision.transforms import InterpolationMode, RandomResizedCrop, v2

from views import (
    CropBox,
    CropParameters,
    Draws,
    ViewKey,
    ViewOptionError,
    ViewOptions,
    augment_view,
    collate_views,
    crop_view,
    draw_box,
    draw_crop,
    draw_views,
    keyed_generator,
    make_views,
)


OPTIONS = ViewOptions(global_crop_size=32, local_crop_sizes=(16,), local_crops_numbers=(3,))


@pytest.fixture(scope="module")
def image():
    """Smooth colours with some noise: every operation changes it, none saturates it."""
    rows, columns = np.mgrid[0:60, 0:80]
    waves = np.stack([np.sin(rows / 9), np.cos(columns / 7), np.sin((rows + columns) / 11)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 8, waves.shape)
    return Image.fromarray(np.clip(128 + 90 * waves + noise, 0, 255).astype(np.uint8))


def draw_many(number, recipe, image_size=(500, 375)):
    return [draw_crop(keyed_generator(3, 1, position), image_size, recipe) for position in range(number)]


# -- keys --------------------------------------------------------------------------------------------------------------


def test_views_are_a_function_of_the_key_alone(image):
    keys = [ViewKey(*key) for key in itertools.product((0, 1), (0, 1), (0, 1, 2**40))]
    torch.manual_seed(0)
    first = {key: make_views(image, key, OPTIONS) for key in keys}
    torch.manual_seed(1)
    np.random.seed(1)
    second = {key: make_views(image, key, OPTIONS) for key in reversed(keys)}
    for key in keys:
        assert all(torch.equal(a, b) for a, b in zip(first[key], second[key], strict=True))
    for a, b in itertools.combinations(keys, 2):
        assert draw_views(a, image.size, OPTIONS) != draw_views(b, image.size, OPTIONS)


def test_a_crop_does_not_depend_on_the_other_crops(image):
    fewer = ViewOptions(global_crop_size=32, local_crop_sizes=(), local_crops_numbers=())
    key = ViewKey(0, 0, 5)
    assert draw_views(key, image.size, fewer) == draw_views(key, image.size, OPTIONS)[:2]


def test_no_two_keys_share_a_stream():
    """Streams are disjoint if their (key, counter) differ above the counter's lowest word, which the draws count up."""
    keys = itertools.product((0, 1, 2), (0, 1, 2), (0, 1, 2), (0, 1, 2), Draws)
    starts = set()
    for seed, epoch, position, crop, draws in keys:
        state = keyed_generator(seed, epoch, position, crop, draws=draws).bit_generator.state["state"]
        assert state["counter"][0] == 0
        starts.add((*state["key"].tolist(), *state["counter"].tolist()))
    assert len(starts) == 3**4 * 2


# -- distributions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [(0.4, 1.0), (0.05, 0.4)])
@pytest.mark.parametrize("image_size", [(500, 375), (100, 300)])  # the second often needs several tries
def test_boxes_are_distributed_as_torchvisions(image_size, scale):
    generator = keyed_generator(7, 0)
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
    assert draw_box(keyed_generator(0, 0), image_size, (0.9, 1.0)) == theirs


def test_jitter_is_distributed_as_torchvisions():
    recipe = OPTIONS.groups[0][0]
    jitters = [crop.jitter for crop in draw_many(4000, recipe) if crop.jitter]
    assert stats.binomtest(len(jitters), 4000, 0.8).pvalue > 1e-3

    orders, counts = np.unique(
        [[operation for operation, _ in jitter] for jitter in jitters], axis=0, return_counts=True
    )
    assert len(orders) == math.factorial(4)
    assert stats.chisquare(counts).pvalue > 1e-3

    torch.manual_seed(0)
    torchvision_jitter = v2.ColorJitter(0.4, 0.4, 0.2, 0.1)
    theirs = [torchvision_jitter.make_params([]) for _ in range(2000)]
    for operation, name in enumerate(["brightness", "contrast", "saturation", "hue"]):
        ours_ = [dict(jitter)[operation] for jitter in jitters]
        assert stats.ks_2samp(ours_, [params[f"{name}_factor"] for params in theirs]).pvalue > 1e-3


def test_probabilities_of_the_recipe():
    (global_1, global_2), (local, *_) = OPTIONS.groups
    for recipe, blur, solarize in [(global_1, 1.0, 0.0), (global_2, 0.1, 0.2), (local, 0.5, 0.0)]:
        crops = draw_many(3000, recipe)
        blurs = [crop.blur_radius for crop in crops if crop.blur_radius > 0]
        for number, probability in [
            (sum(crop.flip for crop in crops), 0.5),
            (sum(crop.grayscale for crop in crops), 0.2),
            (sum(crop.solarize for crop in crops), solarize),
            (len(blurs), blur),
        ]:
            assert stats.binomtest(number, len(crops), probability).pvalue > 1e-3
        assert stats.kstest(blurs, stats.uniform(0.1, 1.9).cdf).pvalue > 1e-3


# -- pixels ------------------------------------------------------------------------------------------------------------


def torchvision_view(image, crop):
    """The view as torchvision's transform classes make it from a PIL image, with the parameters forced."""
    size = list(crop.size)
    box = dict(zip(("top", "left", "height", "width"), crop.box, strict=True))
    image = v2.RandomResizedCrop(size, interpolation=InterpolationMode.BICUBIC).transform(image, box)
    image = v2.RandomHorizontalFlip(p=float(crop.flip))(image)
    factors = dict(crop.jitter)
    names = ["brightness_factor", "contrast_factor", "saturation_factor", "hue_factor"]
    jitter = {name: factors.get(operation) for operation, name in enumerate(names)}
    image = v2.ColorJitter().transform(image, {"fn_idx": [operation for operation, _ in crop.jitter], **jitter})
    image = v2.RandomGrayscale(p=float(crop.grayscale))(image)
    if crop.blur_radius:
        image = image.filter(ImageFilter.GaussianBlur(crop.blur_radius))
    image = v2.RandomSolarize(128, p=float(crop.solarize))(image)
    to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    return v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(to_tensor(image))


def test_views_equal_torchvisions(image):
    seen = set()
    for position in range(30):
        crops = draw_views(ViewKey(0, 0, position), image.size, OPTIONS)
        for view, crop in zip(make_views(image, ViewKey(0, 0, position), OPTIONS), crops, strict=True):
            assert view.dtype == torch.float32 and view.is_contiguous()
            assert torch.equal(view, torchvision_view(image, crop))
            seen |= {name for name in ("flip", "jitter", "grayscale", "blur_radius", "solarize") if getattr(crop, name)}
    assert len(seen) == 5


def test_the_blur_has_its_radius_as_standard_deviation():
    """A bright point becomes a spot whose variance is the radius squared, as for torchvision's true Gaussian."""
    point = torch.zeros(3, 41, 41, dtype=torch.uint8)
    point[:, 20, 20] = 255
    big = v2.functional.resize(point, [41 * 8, 41 * 8], v2.InterpolationMode.NEAREST)  # rounding matters less
    crop = CropParameters((328, 328), CropBox(0, 0, 328, 328), False, (), False, 8.0, False)
    spot = augment_view(big, crop)[0] - augment_view(big, crop)[0, 0, 0]
    offsets = torch.arange(328) - (20 * 8 + 3.5)
    variance = (spot.sum(0) * offsets**2).sum() / spot.sum() - (8**2 - 1) / 12  # less that of the square itself
    assert math.isclose(variance, 8.0**2, rel_tol=0.03)


def test_rectangular_crops(image):
    options = ViewOptions((32, 48), [(16, 8), 12], [2, 1])
    shapes = [tuple(view.shape[1:]) for view in make_views(image, ViewKey(0, 0, 0), options)]
    assert shapes == [(32, 48), (32, 48), (16, 8), (16, 8), (12, 12)]
    crop = draw_views(ViewKey(0, 0, 0), image.size, options)[2]
    assert crop_view(image, crop).shape == (3, 16, 8) and crop_view(image, crop).dtype == torch.uint8


# -- groups and options ------------------------------------------------------------------------------------------------


def test_groups_are_crop_major():
    options = ViewOptions(4, [2, 3], [3, 1])
    sizes = [4, 4, 2, 2, 2, 3]
    samples = [[torch.full((3, s, s), 10.0 * i + c) for c, s in enumerate(sizes)] for i in range(2)]
    groups = collate_views(samples, options)
    assert [tuple(group.shape) for group in groups] == [(4, 3, 4, 4), (6, 3, 2, 2), (2, 3, 3, 3)]
    assert [group[:, 0, 0, 0].tolist() for group in groups] == [[0, 10, 1, 11], [2, 12, 3, 13, 4, 14], [5, 15]]


@pytest.mark.parametrize("sizes, numbers", [([], []), ([96], [0])])
def test_no_local_crops(image, sizes, numbers):
    options = ViewOptions(8, sizes, numbers)
    views = make_views(image, ViewKey(0, 0, 0), options)
    assert [tuple(group.shape) for group in collate_views([views], options)] == [(2, 3, 8, 8)]


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
    ],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ViewOptionError):
        ViewOptions(**wrong)
