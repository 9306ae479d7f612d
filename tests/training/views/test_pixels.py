# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Pixels of views, on the CPU and on a device, against torchvision on PIL images."""

import dataclasses
import math
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch.nn import functional as F

import training.views.on_device as augmentation
import training.views.pixels as crops
from modeling_esvit.images.decoding import Record, decode
from tests.helpers.pil_views import pil_augment, pil_crop, pil_view
from training.data.loader import make_empty_groups, select_views
from training.views.draw import CropBox, CropParameters, Jitter, ViewKey, ViewOptions, draw_views
from training.views.on_device import augment, make_statistics, pack_parameters
from training.views.pixels import augment_view, choose_sufficient_size, crop_view, scale_box, write_views


OPTIONS = ViewOptions(global_crop_size=32, local_crop_sizes=(16,), local_crops_numbers=(3,))
PLAIN = CropParameters((60, 80), CropBox(0, 0, 60, 80), False, (), False, 0.0, False)
STATISTICS = make_statistics("cpu")
STD = torch.tensor(crops.IMAGENET_STD).view(3, 1, 1) * 255
FACTORS = [
    *((Jitter.BRIGHTNESS, factor) for factor in (0.6, 1.4)),
    *((Jitter.CONTRAST, factor) for factor in (0.6, 1.4)),
    *((Jitter.SATURATION, factor) for factor in (0.8, 1.2)),
    *((Jitter.HUE, factor) for factor in (-0.1, 0.07)),
]
CHANGES = [
    *({"jitter": ((operation, factor),)} for operation, factor in FACTORS),
    *({"grayscale": True}, {"solarize": True}, {"blur_radius": 0.7}, {"blur_radius": 1.9}),
]


def make_views(image, drawn, dtype=torch.float32):
    slots = [torch.empty(3, *crop.size, dtype=dtype) for crop in drawn]
    write_views(image, image.size, drawn, slots)
    return slots


def on_device(image, drawn):
    """The same views by way of bytes and `augment`, views of one size together."""
    whole = make_views(image, drawn, torch.uint8)
    return [
        augment(view[None], pack_parameters([crop]), STATISTICS)[0] for view, crop in zip(whole, drawn, strict=True)
    ]


def levels(difference):
    """Normalised values as grey levels."""
    return difference * STD


def rms(a, b):
    return float(np.sqrt(np.mean((np.asarray(a, dtype=np.float32) - np.asarray(b, dtype=np.float32)) ** 2)))


# -- single operations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("box", [CropBox(3, 5, 50, 60), CropBox(10, 0, 9, 11), CropBox(59, 79, 1, 1)])
def test_crops_equal_pillows(image, box, flip):
    crop = CropParameters((32, 24), box, flip, (), False, 0.0, False)
    ours = np.stack(crop_view(np.array(image), image.size, crop), axis=-1).astype(int)
    assert np.abs(ours - np.asarray(pil_crop(image, crop))).max() <= 1


def changed(**changes):
    return dataclasses.replace(PLAIN, **changes)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_operations_equal_pillows_up_to_rounding(image, changes):
    """Root mean square in grey levels; without the operation it would be above 2.5."""
    crop = changed(**changes)
    theirs = pil_augment(image, crop)
    assert rms(theirs, image) > 2.5
    limit = 0.5 if "blur_radius" not in changes else 1.4
    if changes.get("jitter", ((None,),))[0][0] == Jitter.HUE:
        limit = 2.0  # both keep the hue in 8 bits, Pillow in 255 steps and OpenCV in 256
    assert rms(augment_view(np.array(image), crop), theirs) < limit
    view = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    device = augment(view, pack_parameters([crop]), STATISTICS)[0]
    device = levels(device) + torch.tensor(crops.IMAGENET_MEAN).view(3, 1, 1) * 255
    assert rms(device.permute(1, 2, 0), theirs) < limit


@pytest.mark.parametrize("place", ["workers", "device"])
def test_the_blur_has_its_radius_as_standard_deviation(place):
    point = np.zeros((41, 41, 3), dtype=np.uint8)
    point[20, 20] = 255
    big = np.repeat(np.repeat(point, 3, axis=0), 3, axis=1)
    crop = CropParameters((123, 123), CropBox(0, 0, 123, 123), False, (), False, 2.0, False)
    if place == "workers":
        spot = augment_view(big, crop)[..., 0].astype(float)
    else:
        blurred = augmentation.blur(torch.from_numpy(big).permute(2, 0, 1)[None].float(), torch.tensor([2.0]))
        spot = blurred[0, 0].numpy()
    offsets = np.arange(123) - 61
    variance = (spot.sum(0) * offsets**2).sum() / spot.sum() - (3**2 - 1) / 12  # less that of the square itself
    assert math.isclose(variance, 4.0, rel_tol=0.06)


# -- whole views -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("views", [make_views, on_device], ids=["workers", "device"])
def test_views_equal_torchvisions_up_to_rounding(image, views):
    seen = set()
    differences = []
    for position in range(40):
        drawn = draw_views(ViewKey(0, 0, position), image.size, OPTIONS)
        for view, crop in zip(views(image, drawn), drawn, strict=True):
            assert view.dtype == torch.float32 and view.is_contiguous()
            differences.append(float(levels(view - pil_view(image, crop)).square().mean().sqrt()))
            seen |= {name for name in ("flip", "jitter", "grayscale", "blur_radius", "solarize") if getattr(crop, name)}
    assert len(seen) == 5
    assert np.median(differences) < 2 and np.mean(np.array(differences) > 6) < 0.03  # solarize jumps at its threshold


@pytest.mark.parametrize("views", [make_views, on_device], ids=["workers", "device"])
def test_basic_views_are_crops_alone(image, views):
    options = dataclasses.replace(OPTIONS, augmentation="basic")
    for position in range(5):
        drawn = draw_views(ViewKey(0, 0, position), image.size, options)
        for view, crop in zip(views(image, drawn), drawn, strict=True):
            assert levels(view - pil_view(image, crop)).abs().max() < 1.01


def statistics_of(views):
    """What would show a wrong distribution of pixels: mean, contrast, colourfulness, sharpness and hue of each view."""
    values = []
    for view in views:
        red, green, blue = view * STD / 255 + torch.tensor(crops.IMAGENET_MEAN).view(3, 1, 1)
        grey = (red + green + blue) / 3
        values.append(
            [
                grey.mean(),
                grey.std(),
                torch.stack([red, green, blue]).std(dim=0).mean(),
                (grey[:, 1:] - grey[:, :-1]).abs().mean() / (grey.std() + 1e-3),
                (red - blue).mean(),
                (green - blue).mean(),
            ]
        )
    return np.array(values).round(3)  # else a gray view's colour is 0 here and 1e-9 there


def p_values(image, make, number=300):
    """Two-sample Kolmogorov-Smirnov tests of views with keys of their own, theirs and ours."""
    ours, theirs = [], []
    for position in range(number):
        drawn = [draw_views(ViewKey(seed, 0, position), image.size, OPTIONS)[2:] for seed in (1, 2)]
        ours += make(image, drawn[0])
        theirs += [pil_view(image, crop) for crop in drawn[1]]
    columns = zip(statistics_of(ours).T, statistics_of(theirs).T, strict=True)
    return [stats.ks_2samp(a, b).pvalue for a, b in columns]


@pytest.fixture(scope="module")
def tinted():
    """Reddish, fine-grained: wrong hues, blurs and saturations show."""
    pixels = np.random.default_rng(1).integers(0, 70, (60, 80, 3)) + np.array([130, 70, 40])
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("views", [make_views, on_device], ids=["workers", "device"])
def test_distributions_equal_torchvisions(tinted, views):
    assert min(p_values(tinted, views)) > 1e-3


def half_blur(view, crop):
    return augment_view(view, dataclasses.replace(crop, blur_radius=crop.blur_radius / 2))


def replaced_jitter(operation, function):
    return {**crops.JITTER, operation: function}


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("augment_view", half_blur),
        ("JITTER", replaced_jitter(Jitter.HUE, lambda view, factor: crops.adjust_hue(view, abs(factor)))),
        (
            "JITTER",
            replaced_jitter(Jitter.SATURATION, lambda view, factor: crops.adjust_saturation(view, factor - 0.2)),
        ),
        (
            "JITTER",
            replaced_jitter(Jitter.BRIGHTNESS, lambda view, factor: crops.adjust_brightness(view, factor + 0.1)),
        ),
        ("JITTER", replaced_jitter(Jitter.CONTRAST, lambda view, factor: crops.adjust_contrast(view, 2 - factor / 2))),
        ("F", SimpleNamespace(interpolate=lambda *args, antialias, **kwargs: F.interpolate(*args, **kwargs))),
    ],
    ids=["half blur", "one-sided hue", "pale", "bright", "contrast", "no antialias"],
)
def test_the_test_of_distributions_notices(tinted, monkeypatch, name, wrong):
    monkeypatch.setattr(crops, name, wrong)
    assert min(p_values(tinted, make_views)) < 1e-3


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1000, 20), (20, 1000), (3, 2)])
def test_images_of_any_size(size):
    image = Image.new("RGB", size, (200, 100, 50))
    drawn = draw_views(ViewKey(0, 0, 0), size, OPTIONS)
    for views in (make_views, on_device):
        assert all(view.isfinite().all() for view in views(image, drawn))


def test_rectangular_crops(image):
    options = ViewOptions((32, 48), [(16, 8), 12], [2, 1])
    drawn = draw_views(ViewKey(0, 0, 0), image.size, options)
    shapes = [tuple(view.shape[1:]) for view in make_views(image, drawn)]
    assert shapes == [(32, 48), (32, 48), (16, 8), (16, 8), (12, 12)]


def test_a_large_jpeg_is_decoded_smaller_only_if_every_box_keeps_its_pixels():
    file = BytesIO()
    rows, columns = np.mgrid[0:600, 0:800]
    Image.fromarray(np.stack([rows % 256, columns % 256, (rows + columns) // 6], -1).astype(np.uint8)).save(
        file, "JPEG"
    )
    record = Record(file.getvalue(), None, None)
    full = decode(record)
    for side, expected in [(31, (800, 600)), (32, (400, 300)), (63, (400, 300)), (64, (200, 150)), (600, (100, 75))]:
        crop = CropParameters((16, 16), CropBox(0, 100, side, 600), False, (), False, 0.0, False)
        image = decode(record, lambda size, crop=crop: choose_sufficient_size(size, [crop]))
        assert image.size == expected
        box = scale_box(crop.box, full.size, np.array(image).shape)
        assert box.height >= 16 and box.width >= 16 and box.top + box.height <= image.size[1]
    wide = CropParameters((48, 48), CropBox(0, 0, 600, 600), False, (), False, 0.0, False)
    slots = [torch.empty(3, 48, 48, dtype=torch.uint8) for _ in range(2)]
    reduced = decode(record, lambda size: choose_sufficient_size(size, [wide]))
    assert reduced.size == (100, 75)
    write_views(reduced, full.size, [wide], slots[:1])
    write_views(full, full.size, [wide], slots[1:])
    assert rms(*slots) < 6


# -- groups ------------------------------------------------------------------------------------------------------------


def test_groups_are_crop_major():
    options = ViewOptions(4, [2, 3], [3, 1])
    groups = make_empty_groups(2, options, torch.uint8)
    for image in range(2):
        for crop, slot in enumerate(select_views(image, groups, batch=2)):
            slot.fill_(10 * image + crop)
    assert [tuple(group.shape) for group in groups] == [(4, 3, 4, 4), (6, 3, 2, 2), (2, 3, 3, 3)]
    assert [group[:, 0, 0, 0].tolist() for group in groups] == [[0, 10, 1, 11], [2, 12, 3, 13, 4, 14], [5, 15]]


@pytest.mark.parametrize("sizes, numbers", [([], []), ([96], [0])])
def test_no_local_crops(sizes, numbers):
    groups = make_empty_groups(1, ViewOptions(8, sizes, numbers), torch.float32)
    assert [tuple(group.shape) for group in groups] == [(2, 3, 8, 8)]
