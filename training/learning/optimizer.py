# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What happens to parameters and gradients in a step: weight-decay groups, clipping of each parameter on its own, the
frozen last layer, the EMA teacher. As in the original (microsoft/esvit, MIT), with foreach kernels; nothing is read by
the host. Unlike the original, a step whose loss or gradient is not finite changes nothing, the teacher included.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.optim.sgd import sgd


def parameter_groups(model: nn.Module) -> list[dict]:
    """Trainable parameters in two groups: decayed, and not decayed (biases and every one-dimensional tensor). Bias tables,
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
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> torch.Tensor:
    """Scale each gradient by min(1, max_norm / (its norm + 1e-6)); by nothing if `max_norm` is 0. There is no global norm.
    Returns the norms `[gradients]` from before.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = list(torch._foreach_norm(gradients))
    if max_norm:
        scale_to(gradients, norms, max_norm)
    return torch.stack([norm.float() for norm in norms])


def scale_to(gradients: list[torch.Tensor], norms: list[torch.Tensor], max_norm: float) -> None:
    factors = torch._foreach_add(norms, 1e-6)
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
def not_finite(losses: Sequence[torch.Tensor], norms: torch.Tensor) -> torch.Tensor:
    """1 if any of a step's losses (0-dim) or gradient norms `[n]` is infinite or not a number, on any process, else 0:
    float32, 0-dim, on the device. It never travels to the host in the step.
    """
    values = torch.cat([torch.stack(list(losses)).float(), norms])
    flag = (~values.isfinite()).any().float()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return flag


def apply_gradients(
    optimizer: torch.optim.Optimizer, skip: torch.Tensor, scaler: torch.amp.GradScaler | None = None
) -> None:
    """A step of fused AdamW, which reads `skip` (0-dim) on the device: where it is 1, weights, moments and step counts
    stay as they are. A `scaler`, which must have unscaled the gradients, then sets its scale anew.
    """
    optimizer.found_inf = skip  # type: ignore[attr-defined]
    # Not scaler.step(), whose own flag knows neither the loss nor norms that overflow.
    optimizer.step()
    if scaler is not None:
        scaler.update()


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float, skip: torch.Tensor) -> None:
    """theta_t <- momentum theta_t + (1 - momentum) theta_s over all parameters; buffers are the teacher's own. Nothing
    changes where `skip` (0-dim, on the device) is 1, whatever theta_s is.
    """
    averaged: list[torch.Tensor] = [*teacher.parameters()]
    current: list[torch.Tensor] = [*student.parameters()]
    # theta_t - (1 - momentum) (theta_t - theta_s) is a descent along theta_t (weight decay) and -theta_s (gradient).
    # The fused kernel for that takes a flag; a weight of 0 would not do instead, because 0 times NaN is NaN.
    sgd(
        averaged,
        current,
        [None for _ in averaged],
        fused=True,
        found_inf=skip,
        lr=1 - momentum,
        weight_decay=1.0,
        maximize=True,
        momentum=0.0,
        dampening=0.0,
        nesterov=False,
    )
