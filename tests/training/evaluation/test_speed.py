# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how the speed of a model is measured."""

import pytest

from modeling_esvit import EsViTConfig, EsViTModel
from training.evaluation.speed import ThroughputError, ThroughputOptions, measure


def test_a_measurement(tmp_path):
    EsViTConfig(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4).save_pretrained(tmp_path)
    options = ThroughputOptions([str(tmp_path)], batch_size=4, batches=3, warmup=1, device="cpu")
    row = measure(str(tmp_path), options)
    assert row["slowest_images_per_second"] <= row["images_per_second"] <= row["fastest_images_per_second"]
    model = EsViTModel(EsViTConfig.from_pretrained(tmp_path))
    assert row["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert row["peak_bytes"] > 10**7 and row["image_size"] == 32 and "architecture" not in row
    with pytest.raises(ThroughputError, match="cannot be run on 1 images of 8 x 8"):
        measure("timm:vit_tiny_patch16_224", ThroughputOptions([], batch_size=1, image_size=8, device="cpu"))
