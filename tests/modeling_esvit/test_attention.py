# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the plain form of attention, and when it is used."""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modeling_esvit import EsViTConfig, EsViTModel, swin_attention
from modeling_esvit.attention import attention_function, choose_biased_kernels, eager_attention_forward


def attend(masked: bool, dropout: float = 0.0):
    """Returns output and weights of two images, three windows and two heads, and what they were computed from."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 6, 5, 4, dtype=torch.float64, generator=generator)
    mask = torch.randn(1, 6, 5, 5, dtype=torch.float64, generator=generator) if masked else None
    module = nn.Module()
    module.num_heads = 2
    return (
        eager_attention_forward(module, query, key, value, mask, scaling=0.3, dropout=dropout),
        query,
        key,
        value,
        mask,
    )


@pytest.mark.parametrize("masked", [False, True])
def test_the_plain_form_equals_torchs(masked):
    (output, weights), query, key, value, mask = attend(masked)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3)
    torch.testing.assert_close(output, expected.transpose(1, 2))
    assert weights.shape == (6, 2, 5, 5)
    torch.testing.assert_close(
        torch.einsum("bhlm,bhmd->bhld", weights, value.view(6, 2, 5, 4)), expected.view(6, 2, 5, 4)
    )


def test_the_weights_are_those_before_dropout():
    (output, weights), *_ = attend(False, dropout=0.5)
    (whole, expected), *_ = attend(False)
    assert torch.equal(weights, expected) and not torch.allclose(output, whole)


def test_weights_need_the_plain_form():
    config = EsViTConfig(attn_implementation="sdpa")
    assert attention_function(config, output_attentions=True) is eager_attention_forward
    assert attention_function(config, output_attentions=False) is ALL_ATTENTION_FUNCTIONS["sdpa"]
    config._attn_implementation = "no_such"
    with pytest.raises(KeyError, match="no_such"):
        attention_function(config, output_attentions=False)


def test_a_gpu_never_takes_the_kernel_of_cudnn_for_a_bias():
    with FakeTensorMode():
        on_gpu, on_cpu = (torch.empty(1, 2, 3, 4, device=device) for device in ("cuda", "cpu"))
    assert torch.backends.cuda.cudnn_sdp_enabled()
    with choose_biased_kernels(on_gpu):
        assert not torch.backends.cuda.cudnn_sdp_enabled() and not torch.backends.cuda.flash_sdp_enabled()
        assert torch.backends.cuda.mem_efficient_sdp_enabled() and torch.backends.cuda.math_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled()
    with choose_biased_kernels(on_cpu):
        assert torch.backends.cuda.cudnn_sdp_enabled()


@pytest.mark.slow
def test_choosing_kernels_breaks_no_graph(monkeypatch):
    """Compiles the choice of a GPU, forward and backward, once for several passes."""
    kernels = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    monkeypatch.setattr(swin_attention, "choose_biased_kernels", lambda query: sdpa_kernel(kernels))
    sizes = {"image_size": 32, "embed_dim": 8, "depths": [2, 1], "num_heads": [1, 2], "window_size": 4}
    model = EsViTModel(EsViTConfig(**sizes)).train()
    model.set_attn_implementation("sdpa")
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=False)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            compiled([torch.randn(2, 3, 32, 32), torch.randn(2, 3, 20, 20)]).pooler_output.sum().backward()
    assert counter.frame_count == 1
