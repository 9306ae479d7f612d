# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the parameters and operations that are counted of a model."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import ViTConfig

from modeling_esvit import EsViTConfig
from training.evaluation.model_counts import count_parameters_and_operations
from training.evaluation.speed import ThroughputError, build_model
from training.features.frozen_models import FrozenModelError


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2, stride=2)

    def forward(self, pixels):
        tokens = self.conv(pixels).flatten(2).transpose(1, 2)
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


def test_operations_by_hand():
    """A convolution at 16 places of 12 inputs and 4 outputs; attention: 16 x 4 times 4 x 16, 16 x 16 times 16 x 4."""
    parameters, operations = count_parameters_and_operations(Attention(), torch.zeros(1, 3, 8, 8))
    assert parameters == 4 * 3 * 2 * 2 + 4
    assert operations == 2 * 16 * 4 * 12 + 2 * 2 * 16 * 16 * 4


def test_models_of_all_kinds(tmp_path):
    ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=32).save_pretrained(
        tmp_path / "vit"
    )
    EsViTConfig(image_size=64, embed_dim=8, depths=[1, 1], num_heads=[1, 2]).save_pretrained(tmp_path / "ours")
    sides = {}
    for name in (str(tmp_path / "vit"), str(tmp_path / "ours"), "timm:resnet10t", "deit-tiny"):
        model, sides[name] = build_model(name, None, False)
        assert next(model.parameters()) is not None
    assert list(sides.values()) == [32, 64, 176, 224]
    assert build_model("timm:resnet10t", 64, False)[1] == 64
    for wrong, error in (
        ("timm:no_such", FrozenModelError),
        ("swin-tinny@7", ThroughputError),
        ("swin-tiny@seven", ThroughputError),
    ):
        with pytest.raises(error):
            build_model(wrong, None, False)
