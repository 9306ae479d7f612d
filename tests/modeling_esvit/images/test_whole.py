# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks whole images as pixel values: their sizes and their normalisation."""

from PIL import Image

from modeling_esvit.images.whole import fit_size, whole_image


def test_whole_images():
    class Statistics:
        image_mean, image_std = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]

    assert fit_size((400, 300), 224, 32) == (160, 224)
    assert fit_size((3000, 2), 448, 32) == (32, 448)
    pixels = whole_image(Image.new("RGB", (400, 300), (255, 0, 0)), Statistics, longer=224)
    assert pixels.shape == (1, 3, 160, 224)
    assert pixels[0, :, 5, 5].tolist() == [1, -1, -1]
