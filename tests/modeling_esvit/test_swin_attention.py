# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that Swin's attention is the same by every implementation and on every path, for several groups at once."""

import pytest
import torch

from modeling_esvit import EsViTConfig, EsViTModel
from tests.helpers.accelerator import attention_for


SIZES = {"image_size": 48, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4}
GROUPS = [(2, 3, 44, 52), (3, 3, 28, 28)]  # maps that windows of 4 pad, and shift


def build(implementation: str, **fields) -> EsViTModel:
    """Builds a model whose every parameter is far from its initial value."""
    torch.manual_seed(0)
    config = EsViTConfig(**{**SIZES, **fields})
    model = EsViTModel._from_config(config, attn_implementation=implementation).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def draw_images(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def compute_all(implementation: str, **fields) -> list[torch.Tensor]:
    """Returns the outputs for all groups, and the gradients of all parameters."""
    with attention_for(implementation) as name:
        model = build(name, **fields)
        output = model([draw_images(shape) for shape in GROUPS])
        gradients = torch.autograd.grad(output.last_hidden_state.pow(2).sum(), list(model.parameters()))
    return [output.last_hidden_state, output.pooler_output, *gradients]


@pytest.mark.parametrize("implementation", ["sdpa", "accelerator"])
@pytest.mark.parametrize("fields", [{}, {"qkv_bias": False}])
def test_every_implementation_equals_eager(implementation, fields):
    for found, eager in zip(compute_all(implementation, **fields), compute_all("eager", **fields), strict=True):
        torch.testing.assert_close(found, eager, rtol=1e-4, atol=1e-5 * eager.abs().max().item() + 1e-6)


@pytest.mark.parametrize("implementation", ["eager", "accelerator"])
@torch.no_grad()
def test_attentions_of_groups(implementation):
    groups = [draw_images(shape) for shape in GROUPS]
    with attention_for(implementation) as name:
        model = build(name)
        packed = model(groups, output_attentions=True).attentions
        separate = [model(group, output_attentions=True).attentions for group in groups]
    for block, weights in enumerate(packed):
        assert isinstance(weights, tuple) and len(weights) == len(groups)
        for group, other in zip(weights, separate, strict=True):
            torch.testing.assert_close(group, other[block], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(group.sum(dim=-1), torch.ones_like(group[..., 0]))
