# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the sparse attention of ViL: against dense attention, in parts, and its memory."""

import collections

import pytest
import torch

from modeling_esvit import EsViTConfig
from modeling_esvit.vil_attention import OWN, EsViTViLSparseAttention
from tests.benchmarks.reference_vil import dense_attention


def sparse_attention(num_global: int, window: int = 3, has_biases: bool = True) -> EsViTViLSparseAttention:
    torch.manual_seed(0)
    config = EsViTConfig(window_size=window, attn_implementation="eager")
    module = EsViTViLSparseAttention(config, 8, 2, num_global, has_biases).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize("has_biases", [True, False])
@pytest.mark.parametrize("height, width, num_global", [(9, 9, 1), (10, 4, 2), (2, 13, 0), (1, 1, 1)])
def test_equal_to_dense_attention(height, width, num_global, has_biases):
    module = sparse_attention(num_global, has_biases=has_biases)
    tokens = torch.randn(2, num_global + height * width, 8, dtype=torch.float64, requires_grad=True)
    factor = torch.randn_like(tokens)
    gradients = []
    for output in (module(tokens, height, width)[0], dense_attention(module, tokens, height, width)):
        gradients.append(torch.autograd.grad((output * factor).sum(), [tokens, *module.parameters()]))
    torch.testing.assert_close(module(tokens, height, width)[0], output)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_batch_in_parts_is_equal(monkeypatch):
    module = sparse_attention(1)
    tokens = torch.randn(5, 1 + 6 * 7, 8, dtype=torch.float64)
    whole, _ = module(tokens, 6, 7)
    monkeypatch.setattr("modeling_esvit.vil_attention.PART_TOKENS", 2 * 6 * 7)
    torch.testing.assert_close(module(tokens, 6, 7)[0], whole)


def stored_bytes(module: EsViTViLSparseAttention, side: int) -> int:
    """What one call keeps for its backward pass."""
    sizes = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(torch.randn(1, 1 + side**2, 8, dtype=torch.float64), side, side)
    return sum(sizes)


def test_memory_grows_with_the_tokens():
    module = sparse_attention(1)
    small, large = stored_bytes(module, 24), stored_bytes(module, 48)
    assert 3.5 < large / small < 4.2  # 4 times the tokens; dense attention would keep 16 times as much


def test_each_neighbour_is_drawn_as_often():
    module = sparse_attention(1).train()
    module.mode = 1
    torch.manual_seed(0)
    drawn = collections.Counter(int(module.places(torch.device("cpu"))[1]) for _ in range(4000))
    assert sorted(drawn) == [place for place in range(9) if place != OWN]
    assert all(400 < count < 600 for count in drawn.values())
    assert len(module.eval().places(torch.device("cpu"))) == 9
