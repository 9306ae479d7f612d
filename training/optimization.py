# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""
What happens to parameters and gradients in a step: weight-decay groups, clipping of each parameter on its own, the
frozen last layer, the EMA teacher. As in the original (microsoft/esvit, MIT), with foreach kernels; nothing is read by
the host.
"""

from collections.abc import Iterable

import torch
from torch import nn


def parameter_groups(model: nn.Module) -> list[dict]:
    """
    Trainable parameters in two groups: decayed, and not decayed (biases and every one-dimensional tensor). Bias tables,
    position embeddings and the prototypes' norms `[K, 1]` are decayed, as in the original.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if name.endswith(".bias") or parameter.ndim == 1 else decayed).append(parameter)
    return [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]


def set_schedules(optimizer: torch.optim.Optimizer, lr: float, weight_decay: float) -> None:
    """The learning rate of both groups, and the weight decay of the first."""
    for group in optimizer.param_groups:
        group["lr"] = float(lr)  # a numpy scalar in the optimizer's state could not be loaded with weights_only
    optimizer.param_groups[0]["weight_decay"] = float(weight_decay)


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Scale each gradient by min(1, max_norm / (its norm + 1e-6)). There is no global norm."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    factors = torch._foreach_norm(gradients)
    torch._foreach_add_(factors, 1e-6)
    torch._foreach_reciprocal_(factors)
    torch._foreach_mul_(factors, max_norm)
    torch._foreach_clamp_max_(factors, 1.0)
    torch._foreach_mul_(gradients, factors)


def drop_last_layer_gradients(model: nn.Module) -> None:
    """Leave the prototypes of both heads out of the coming step: without a gradient AdamW skips them altogether."""
    for name, parameter in model.named_parameters():
        if "last_layer" in name:
            parameter.grad = None


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """theta_t <- momentum theta_t + (1 - momentum) theta_s over all parameters; buffers are the teacher's own."""
    averaged: list[torch.Tensor] = list(teacher.parameters())
    torch._foreach_lerp_(averaged, list(student.parameters()), 1 - momentum)
