# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which models timm's Swin cannot carry, and why."""

import re

import pytest

from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.conversion import ConversionError
from modeling_esvit.conversion.timm_swin import find_timm_obstacles, save_timm
from tests.helpers.tiny_models import VIL


SWIN = {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4, "image_size": 32}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (VIL, "its architecture is ViL"),
        ({**SWIN, "patch_norm": False}, "no LayerNorm"),
        ({**SWIN, "use_absolute_embeddings": True}, "position embeddings"),
        ({**SWIN, "hidden_act": "relu"}, "'relu'"),
        (
            {**SWIN, "image_size": [16, 32]},
            r"stage 1 has window 4 and shift 0, but timm's would have \(4, 4\) and \(0, 2\)",
        ),
        ({**SWIN, "image_size": 40}, "the map of stage 1, 10 x 10, is padded to multiples of 4"),
    ],
)
def test_what_timm_cannot_carry(tmp_path, fields, reason):
    config = EsViTConfig(**fields)
    assert re.search(reason, "; ".join(find_timm_obstacles(config)))
    with pytest.raises(ConversionError, match=reason):
        save_timm(EsViTModel(config), tmp_path / "out")
    assert find_timm_obstacles(EsViTConfig(**SWIN)) == [] and not (tmp_path / "out").exists()
