# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Running statistics of BatchNorms: a forward pass moves them, and a step may have to leave everything as it was."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class RunningStatistics:
    """Those of all BatchNorms of some models, on their devices; without any, nothing is done."""

    def __init__(self, *models: nn.Module):
        norms = [module for model in models for module in model.modules() if isinstance(module, _BatchNorm)]
        self.buffers = [buffer for norm in norms for buffer in norm.buffers()]
        self.kept = [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()
    def keep(self) -> None:
        """Remember them as they are."""
        if self.buffers:
            torch._foreach_copy_(self.kept, self.buffers)

    @torch.no_grad()
    def restore(self, skip: torch.Tensor) -> None:
        """Put back what was kept where `skip` (0-dim, on the device) is 1; it is not read by the host."""
        for buffer, kept in zip(self.buffers, self.kept, strict=True):
            buffer.copy_(torch.where(skip > 0, kept, buffer))
