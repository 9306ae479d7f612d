# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which images each process takes, and which part of an image a crop sees."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image as Pillow

from tests.helpers.tiny_runs import write_model
from training.data.sources import open_source
from training.features.extraction import (
    LONGEST,
    LabelledImages,
    cut_middle,
    make_evaluation_transform,
    process_items,
)
from training.features.frozen_models import load_frozen


@pytest.mark.parametrize(("count", "processes"), [(10, 1), (10, 2), (9, 2), (9, 4), (1, 3), (24, 3)])
def test_shares_of_processes_are_all_rows_in_order(count, processes):
    images = LabelledImages(
        open_source(Dataset.from_dict({"image": [b""] * count, "label": [0] * count}), image_column="image"), None
    )
    shares = [
        list(process_items(images, SimpleNamespace(num_processes=processes, process_index=rank)))
        for rank in range(processes)
    ]
    assert [row for share in shares for row in share][:count] == list(range(count))
    assert {len(share) for share in shares} == {-(-count // processes)}


def test_the_middle_of_a_line_is_all_that_a_crop_sees(tmp_path):
    gradient = np.zeros((4, 400, 3), dtype=np.uint8)
    gradient[..., 0] = np.linspace(0, 255, 400)
    image = Pillow.fromarray(gradient)
    assert cut_middle(image).size == (4 * LONGEST, 4) and cut_middle(image.resize((64, 4))).size == (64, 4)
    assert cut_middle(image.rotate(90, expand=True)).size == (4, 4 * LONGEST)
    processor = load_frozen(str(write_model(tmp_path))).transform.keywords["processor"]
    cut, whole = make_evaluation_transform(processor)(image), processor(image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(cut, whole, atol=0.02, rtol=0)
