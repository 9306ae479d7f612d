# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how images are loaded, batched and computed, and which features are refused."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from modeling_esvit.embed.engine import (
    FeatureError,
    LoadedImage,
    check_finite,
    extract,
    load_ahead,
    load_image,
    select_view_features,
    take_batches,
)
from modeling_esvit.images.decoding import Record


def test_an_unreadable_record_keeps_its_name_and_says_why(tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    good, bad = (load_image(Record(str(tmp_path / f"{n}.png"), 4, n), lambda image: image.size) for n in "ab")
    assert good == LoadedImage("a", 4, (3, 2))
    assert (bad.name, bad.label, bad.pixels) == ("b", 4, None) and "b" in bad.unreadable


def test_batches_leave_out_what_cannot_be_read():
    readable = [LoadedImage(str(number), number, torch.tensor([float(number)])) for number in range(5)]
    images = [*readable[:1], LoadedImage("bad", None, None, "damaged"), *readable[1:]]
    batches = []
    found = extract(
        iter(images),
        lambda batch: [torch.stack([image.pixels for image in batch]), torch.zeros(len(batch))],
        batch_size=2,
        after_batch=batches.append,
    )
    assert (found.names, found.labels) == (["0", "1", "2", "3", "4"], [0, 1, 2, 3, 4])
    assert found.unreadable == {"bad": "damaged"} and batches == [2, 2, 2]
    assert found.outputs[0].flatten().tolist() == [0, 1, 2, 3, 4] and found.outputs[1].shape == (5,)
    nothing = extract(iter(images[1:2]), lambda batch: pytest.fail("nothing can be read"), batch_size=2)
    assert (nothing.names, nothing.outputs) == ([], [])


def test_items_stay_in_order():
    assert list(load_ahead(iter(range(40)), lambda number: 2 * number, batch_size=4, threads=3)) == [*range(0, 80, 2)]
    assert list(take_batches(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]


def test_features_that_cannot_be_used():
    with pytest.raises(FeatureError, match="int gives no pooler_output"):
        select_view_features(3, SimpleNamespace(last_hidden_state=torch.ones(1, 2, 3)))
    assert select_view_features(3, SimpleNamespace(pooler_output=torch.ones(2, 3, 1, 1))).shape == (2, 3)
    features = torch.ones(4, 3)
    check_finite(features, str, torch.float32)
    features[1, 2], features[3, 0] = torch.inf, torch.nan
    with pytest.raises(
        FeatureError, match="of image-1 is not finite, nor are 1 more of 4: .*overflow in torch.float16"
    ):
        check_finite(features, lambda row: f"image-{row}", torch.float16)
