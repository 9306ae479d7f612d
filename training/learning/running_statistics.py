# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Restores the running statistics of BatchNorms, which a forward pass moves, after a step that is skipped."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def list_batch_norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


class RunningStatistics:
    """Holds the running statistics of all BatchNorms of some models, on their devices. Without any, does nothing."""

    def __init__(self, *models: nn.Module):
        self.buffers = [buffer for model in models for norm in list_batch_norms(model) for buffer in norm.buffers()]
        self.kept = [buffer.clone() for buffer in self.buffers]

    @torch.no_grad()
    def keep(self) -> None:
        """Remembers them as they are."""
        if self.buffers:
            torch._foreach_copy_(self.kept, self.buffers)

    @torch.no_grad()
    def restore(self, skip: torch.Tensor) -> None:
        """Puts them back if `skip` (0-dim, on the device) is 1, without reading it on the host."""
        for buffer, kept in zip(self.buffers, self.kept, strict=True):
            buffer.copy_(torch.where(skip > 0, kept, buffer))
