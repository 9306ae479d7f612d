# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Counts the parameters of a network, and the floating point operations of a forward pass."""

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@torch.no_grad()
def count_parameters_and_operations(model: nn.Module, pixels: Tensor) -> tuple[int, int]:
    """Counts the parameters, and the floating point operations for `pixels` `[B, 3, H, W]`.

    Counts matrix products and convolutions, attention included. A product and a sum are two operations. Model and
    pixels may be fake tensors.
    """
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # the other backends hide their products from the counter
        model(pixels)
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops()
