# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which part of an image a crop sees, and that a line of pixels costs no more than its crop."""

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, ConvNextImageProcessor, ViTImageProcessor

from modeling_esvit.images.transform import LONGEST, crops_middle, cut_middle, find_size, make_evaluation_transform
from tests.helpers.tiny_runs import write_model


def test_the_middle_of_a_line_is_all_that_a_crop_sees(tmp_path):
    gradient = np.zeros((4, 400, 3), dtype=np.uint8)
    gradient[..., 0] = np.linspace(0, 255, 400)
    image = Image.fromarray(gradient)
    assert cut_middle(image).size == (4 * LONGEST, 4) and cut_middle(image.resize((64, 4))).size == (64, 4)
    assert cut_middle(image.rotate(90, expand=True)).size == (4, 4 * LONGEST)
    processor = AutoImageProcessor.from_pretrained(write_model(tmp_path))
    cut, whole = make_evaluation_transform(processor)(image), processor(image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(cut, whole, atol=0.02, rtol=0)


def test_processors_that_crop_without_an_option_for_it():
    """ConvNeXT's processors, which ResNets have, too: a line of 20000 pixels would become 256 x 5120000 of them."""
    small, large = (ConvNextImageProcessor(size={"shortest_edge": side}) for side in (224, 384))
    assert [crops_middle(each) for each in (small, large, ViTImageProcessor())] == [True, False, False]
    assert [find_size(each.to_dict()) for each in (small, large, ViTImageProcessor())] == [
        (224,) * 2,
        (384,) * 2,
        (224,) * 2,
    ]
    sizes, resize = list[tuple[int, ...]](), ConvNextImageProcessor.resize
    small.resize = lambda image, *rest, **named: (sizes.append(image.shape[-2:]), resize(small, image, *rest, **named))[
        1
    ]
    assert make_evaluation_transform(small)(Image.new("RGB", (20000, 1))).shape == (3, 224, 224)
    assert sizes == [(1, LONGEST)]
