# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Infers the published architectures from the shapes of their tensors, as `original_swin_shapes.json` lists them."""

import json

import pytest
import torch

from modeling_esvit import EsViTConfig, EsViTForPreTraining
from modeling_esvit.convert_original.converter import (
    ConversionError,
    check_tensors,
    infer_config,
    to_our_name,
)
from tests.helpers.golden import FIXTURES


@pytest.mark.parametrize(
    ("entry", "architecture", "window"),
    [
        ("swin_tiny_w7", "swin-tiny", 7),
        ("swin_tiny_w14", "swin-tiny", 14),
        ("swin_small_w7", "swin-small", 7),
        ("swin_base_w14", "swin-base", 14),
    ],
)
def test_published_shapes(entry, architecture, window):
    shapes = json.loads((FIXTURES / "original_swin_shapes.json").read_text())[entry]
    network = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    config = infer_config(network)
    assert config.to_dict() == EsViTConfig.from_architecture(architecture, window_size=window).to_dict()
    with torch.device("meta"):
        expected = EsViTForPreTraining(config).state_dict()
    found = {to_our_name(name): tensor for name, tensor in network.items() if not name.endswith("_index")}
    found |= {name: expected[name] for name in ("view_center", "region_center")}
    check_tensors(expected, found)
    del found["esvit.encoder.norm.bias"]
    with pytest.raises(ConversionError, match=r"missing: norm\.bias"):
        check_tensors(expected, found)
