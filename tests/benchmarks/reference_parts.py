# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Holds what the plain forms of several families have in common."""

import torch
from torch import nn


def drop_path(branch: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """Leaves out the branch `[n, ...]` of some images of one crop size, and scales up that of the others."""
    rate = layer.drop_path.rate
    if rate == 0.0 or not layer.training:
        return branch
    kept = draw_kept(rate, branch)
    return branch.div(1 - rate) * kept.view(-1, *[1] * (branch.ndim - 1))


def draw_kept(rate: float, branch: torch.Tensor) -> torch.Tensor:
    """Draws 1 for each image whose branch is kept, else 0: `[n]`."""
    return (1 - rate + torch.rand(len(branch), dtype=branch.dtype, device=branch.device)).floor_()
