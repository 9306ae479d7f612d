# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Models loaded with int8 weights by torchao give nearly the features that they give in float32."""

import pytest
import torch
from transformers import AutoModel, TorchAoConfig

from modeling_esvit import EsViTConfig, EsViTModel


@pytest.mark.parametrize(
    ("name", "limit"), [("Int8WeightOnlyConfig", 0.03), ("Int8DynamicActivationInt8WeightConfig", 0.05)]
)
def test_int8_by_torchao(tmp_path, name, limit):
    quantization = pytest.importorskip("torchao.quantization", reason="needs torchao")
    torch.manual_seed(0)
    config = EsViTConfig(embed_dim=32, depths=[2, 2], num_heads=[1, 2], window_size=4, image_size=32)
    model = EsViTModel(config).eval()
    model.save_pretrained(tmp_path)
    int8 = AutoModel.from_pretrained(
        tmp_path, quantization_config=TorchAoConfig(getattr(quantization, name)(version=2))
    ).eval()
    assert type(int8.encoder.layers[0].blocks[0].mlp.fc1.weight).__name__ == "Int8Tensor"
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        ours, theirs = model(images), int8(images)
    for output in ("pooler_output", "last_hidden_state"):
        difference = (ours[output] - theirs[output]).abs().max() / ours[output].abs().max()
        assert 0 < difference < limit
