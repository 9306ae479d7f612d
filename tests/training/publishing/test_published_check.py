# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how a published model is compared with the expected outputs."""

import torch
from safetensors.torch import save_file

from modeling_esvit import EsViTModel
from tests.helpers.tiny_models import save_with_heads
from training.publishing import published_check
from training.publishing.published_check import compute_differences, sample_outputs


@torch.no_grad()
def test_outputs_of_backbone_and_heads_are_compared(tmp_path, monkeypatch):
    with_heads, images = save_with_heads(tmp_path), torch.randn(2, 3, 32, 32)
    models = [EsViTModel.from_pretrained(tmp_path).eval(), with_heads]
    expected = sample_outputs(models[0], images) | sample_outputs(with_heads, images)
    assert {"last_hidden_state", "pooler_output", "view_embeddings", "region_prototypes", "view_center"} < set(expected)
    named = []
    monkeypatch.setattr(published_check, "load_by_name", lambda *given: named.append(given) or models)
    expected["pooler_output"] = expected["pooler_output"] + 0.5
    save_file({name: value.contiguous() for name, value in expected.items()} | {"pixel_values": images}, tmp_path / "x")
    differences = compute_differences("ada/x", "main", str(tmp_path / "x"))
    assert named == [("ada/x", "main", True)] and differences.keys() == expected.keys()
    assert differences.pop("pooler_output") > 0.1 and max(differences.values()) < 1e-6
