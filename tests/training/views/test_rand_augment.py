# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""RandAugment's operations against torchvision's on tensors, and by hand; timm's too, where it is installed."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from training.views.draw import CropBox, CropParameters, Erased, Operation, make_noise
from training.views.pixels import write_views
from training.views.rand_augment import FILL, transform


PLAIN = CropParameters((48, 64), CropBox(0, 0, 48, 64), False, (), False, 0.0, False)
ON_TENSORS = {
    Operation.AUTO_CONTRAST: (0.0, F.autocontrast),
    Operation.EQUALIZE: (0.0, F.equalize),
    Operation.INVERT: (0.0, F.invert),
    Operation.POSTERIZE: (1, lambda image: F.posterize(image, 1)),
    Operation.SOLARIZE: (26, lambda image: F.solarize(image, 26)),
    Operation.COLOR: (0.2, lambda image: F.adjust_saturation(image, 0.2)),
    Operation.CONTRAST: (1.8, lambda image: F.adjust_contrast(image, 1.8)),
    Operation.BRIGHTNESS: (0.2, lambda image: F.adjust_brightness(image, 0.2)),
    Operation.SHARPNESS: (1.8, lambda image: F.adjust_sharpness(image, 1.8)),
}
TIMM = {
    Operation.AUTO_CONTRAST: ("AutoContrast", ()),
    Operation.EQUALIZE: ("Equalize", ()),
    Operation.INVERT: ("Invert", ()),
    Operation.ROTATE: ("Rotate", (-27.0,)),
    Operation.POSTERIZE: ("PosterizeIncreasing", (1,)),
    Operation.SOLARIZE: ("SolarizeIncreasing", (26,)),
    Operation.SOLARIZE_ADD: ("SolarizeAdd", (99,)),
    Operation.COLOR: ("ColorIncreasing", (0.2,)),
    Operation.CONTRAST: ("ContrastIncreasing", (1.8,)),
    Operation.BRIGHTNESS: ("BrightnessIncreasing", (1.8,)),
    Operation.SHARPNESS: ("SharpnessIncreasing", (0.2,)),
    Operation.SHEAR_X: ("ShearX", (0.27,)),
    Operation.SHEAR_Y: ("ShearY", (-0.27,)),
    Operation.TRANSLATE_X: ("TranslateXRel", (0.4,)),
    Operation.TRANSLATE_Y: ("TranslateYRel", (-0.4,)),
}


@pytest.fixture(scope="module")
def view():
    """uint8 [48, 64, 3] of grey levels 20 to 230."""
    rows, columns = np.mgrid[0:48, 0:64]
    waves = np.stack([np.sin(rows / 9), np.cos(columns / 7), np.sin((rows + columns) / 11)], axis=-1)
    return (125 + 100 * waves + np.random.default_rng(0).uniform(-5, 5, waves.shape)).astype(np.uint8)


@pytest.mark.parametrize("operation", ON_TENSORS, ids=lambda operation: operation.name)
def test_operations_on_colours_equal_torchvisions_on_tensors(view, operation):
    argument, theirs = ON_TENSORS[operation]
    expected = theirs(torch.from_numpy(view).permute(2, 0, 1)).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(expected - view).mean() > 1
    assert np.abs(transform(view, operation, argument).astype(int) - expected).max() <= 1


def test_solarize_add_and_no_bits(view):
    expected = np.where(view < 128, np.minimum(view.astype(int) + 99, 255), view)
    assert np.array_equal(transform(view, Operation.SOLARIZE_ADD, 99), expected)
    assert not transform(view, Operation.POSTERIZE, 0).any()


def test_geometry(view):
    height, width = view.shape[:2]
    moved = transform(view, Operation.TRANSLATE_X, 0.25)
    assert (
        np.array_equal(moved[:, : width * 3 // 4], view[:, width // 4 :]) and (moved[:, width * 3 // 4 :] == FILL).all()
    )
    moved = transform(view, Operation.TRANSLATE_Y, -0.25)
    assert np.array_equal(moved[height // 4 :], view[: height * 3 // 4]) and (moved[: height // 4] == FILL).all()
    turned = transform(np.ascontiguousarray(view[:, :48]), Operation.ROTATE, 90.0)
    assert np.array_equal(turned, np.rot90(view[:, :48]))
    sheared = transform(view, Operation.SHEAR_X, 2.0)  # by twice the height of a pixel's centre
    assert all(np.array_equal(sheared[row, : width - 2 * row - 1], view[row, 2 * row + 1 :]) for row in (0, 7, 20))
    sheared = transform(view, Operation.SHEAR_Y, 2.0)
    assert all(np.array_equal(sheared[: height - 2 * c - 1, c], view[2 * c + 1 :, c]) for c in (0, 7, 20))


@pytest.mark.parametrize("operation", Operation, ids=lambda operation: operation.name)
def test_operations_equal_timms(view, operation):
    timm = pytest.importorskip("timm.data.auto_augment")
    name, arguments = TIMM[operation]
    expected = timm.NAME_TO_OP[name](
        Image.fromarray(view), *arguments, resample=Image.Resampling.BICUBIC, fillcolor=FILL
    )
    assert np.array_equal(transform(view, operation, *(arguments or (0.0,))), np.asarray(expected))


def test_views_have_the_operations_in_order_and_the_noise(view):
    operations = ((Operation.SOLARIZE, 26), (Operation.TRANSLATE_X, 0.25))
    erased = Erased(CropBox(5, 7, 11, 13), 3)
    views = []
    for changes in ({}, {"operations": operations}, {"operations": operations[::-1]}, {"erased": erased}):
        views.append(torch.empty(3, 48, 64))
        write_views(Image.fromarray(view), (64, 48), [dataclasses.replace(PLAIN, **changes)], [views[-1]])
    plain, forward, backward, with_noise = views
    assert not torch.equal(forward, plain) and not torch.equal(forward, backward)
    assert np.array_equal(with_noise[:, 5:16, 7:20], make_noise(erased))
    changed = (with_noise != plain).any(dim=0)
    assert changed.sum() == 11 * 13 and math.isfinite(with_noise.sum())
