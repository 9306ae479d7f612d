# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The size of a network: its parameters, and the floating point operations of a forward pass."""

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@torch.no_grad()
def parameters_and_operations(model: nn.Module, pixels: Tensor) -> tuple[int, int]:
    """Parameters, and floating point operations for `pixels` [B, 3, H, W], of which a product and a sum are two. Those of
    matrix products and convolutions are counted, attention's included. Fake tensors will do.
    """
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # whose products are all seen
        model(pixels)
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops()
