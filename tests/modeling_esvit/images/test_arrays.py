# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the images that arrays become, by their values, and which arrays are none."""

import numpy as np
import pytest
from PIL import Image

from modeling_esvit.images.arrays import convert_array, is_image_array
from modeling_esvit.images.decoding import DecodingOptions, Record, UnreadableImageError, decode


GREY = np.arange(6, dtype=np.uint8).reshape(2, 3) * 50
RGB = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)


@pytest.mark.parametrize(
    "array, expected",
    [
        (RGB, RGB),
        (RGB.astype(np.uint16) * 257, RGB),
        (RGB / 255, RGB),
        ((RGB / 255).astype(np.float16), RGB),
        (GREY, GREY[..., None].repeat(3, axis=2)),
        (GREY[..., None], GREY[..., None].repeat(3, axis=2)),
        (GREY > 100, (GREY > 100)[..., None].repeat(3, axis=2) * np.uint8(255)),
        (np.asfortranarray(RGB)[::-1], RGB[::-1]),
        (np.dstack([RGB, np.full_like(GREY, 255)]), RGB),
        (np.dstack([RGB, np.zeros_like(GREY)]), np.full_like(RGB, 255)),  # transparent pixels are white
    ],
)
def test_values(array, expected):
    before = array.copy()
    assert np.array_equal(np.asarray(decode(Record(array, None, None))), expected)
    assert np.array_equal(array, before)


def test_white_level():
    twelve_bits = Record((RGB.astype(np.int64) * 16), None, None, DecodingOptions(white_level=255 * 16))
    assert np.array_equal(np.asarray(decode(twelve_bits)), RGB)
    assert np.array_equal(np.asarray(convert_array(np.full((1, 1), 127, np.int8), white_level=127)), [[255]])


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((3, 8, 9), np.uint8), r"not \(3, 8, 9\); move its channels to the end: array.transpose\(1, 2, 0\)"),
        (np.zeros((2, 3, 5), np.uint8), r"\[H, W, 3\] or \[H, W, 4\], not \(2, 3, 5\)$"),
        (np.zeros((0, 3, 3), np.uint8), r"not \(0, 3, 3\)"),
        (RGB.astype(np.int64), "uint8, uint16, bool or floats, not of int64"),
        (RGB.astype(np.float32), "must be finite and lie in 0 .. 1, but lie in 0.0 .. 255.0"),
        (np.array([["a"]]), "not of <U1"),
        ([[1, 2]], "not a list"),
    ],
)
def test_what_is_no_image(array, message):
    with pytest.raises(UnreadableImageError, match=message):
        decode(Record(array, None, "mine"))


def test_one_array_and_several():
    assert is_image_array(GREY) and is_image_array(RGB)
    assert not any(map(is_image_array, [RGB[None], np.array(["a.jpg"]), GREY.tolist(), Image.fromarray(RGB)]))
