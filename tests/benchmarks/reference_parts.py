# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What the plain forms of several families have in common."""

import torch
from torch import nn


def drop_path(branch: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    rate = layer.drop_path.rate
    if rate == 0.0 or not layer.training:
        return branch
    keep = 1 - rate
    factors = (keep + torch.rand(branch.shape[0], 1, 1, dtype=branch.dtype, device=branch.device)).floor_()
    return branch.div(keep) * factors
