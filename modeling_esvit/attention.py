# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes the attention of all families: the plain form here, every other through transformers' interface."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes plain attention `[B, windows * heads, L, d]` -> `[B, L, windows * heads, d]`.

    The mask is added to the logits. `module.num_heads` is the number of heads. Also returns the weights before dropout,
    `[B * windows, heads, L, S]`: the very tensor that is used, so that gradients with respect to it exist.
    """
    queries, keys = query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2)
    if attention_mask is None:
        logits = torch.bmm(queries * scaling, keys)
    else:
        mask = attention_mask.expand(query.shape[0], -1, -1, -1).flatten(0, 1)
        logits = torch.baddbmm(mask, queries, keys, alpha=scaling)
    precision = torch.promote_types(query.dtype, torch.float32)
    weights = logits.softmax(dim=-1, dtype=precision).to(query.dtype)
    weights = weights.unflatten(0, (-1, module.num_heads))  # type: ignore[arg-type]  # an int, for mypy anything
    dropped = F.dropout(weights, p=dropout, training=module.training).view_as(logits)
    return torch.bmm(dropped, value.flatten(0, 1)).unflatten(0, query.shape[:2]).transpose(1, 2), weights


def attention_function(config: PreTrainedConfig, output_attentions: bool) -> Any:
    """Returns the function that computes attention, called as [`eager_attention_forward`] is.

    It is the implementation that the configuration names. Fused kernels do not return weights, so a request for them is
    answered by the plain form.
    """
    name = "eager" if output_attentions else config._attn_implementation
    return ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention_forward)


def choose_biased_kernels(query: torch.Tensor) -> AbstractContextManager:
    """Lets torch choose, on a GPU, among the kernels of fused attention that read any bias right.

    cuDNN's, which it would take first on some GPUs, has had silent errors with biases whose rows are not aligned.
    """
    if query.device.type != "cuda":
        return nullcontext()
    return sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


def to_autocast_type(tokens: torch.Tensor) -> torch.Tensor:
    """Converts tokens as the next projection would under autocast, so that what is moved before it is half as large."""
    device = tokens.device.type
    if not torch.amp.is_autocast_available(device):  # as on the meta device
        return tokens
    return tokens.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else tokens
