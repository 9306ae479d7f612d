# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Updates parameters: groups, clipping, frozen parts, AdamW, and the teacher's moving average.

It computes what the original does (microsoft/esvit, MIT), with foreach kernels, and reads nothing on the host. Unlike
the original, a step whose loss or gradient is not finite changes nothing, the teacher included.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.sgd import sgd

from training.learning.layers import scale_rates


def group_parameters(model: Any, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Returns the trainable parameters in groups: those with weight decay, then those without.

    Biases and one-dimensional tensors have none. Bias tables, position embeddings and the prototypes' norms `[K, 1]`
    have it, as in the original. A `layer_decay` below 1 splits both further, by the factors of `scale_rates`; the order
    of the parameters stays the same.

    Raises:
        EsViTBackboneError: See `scale_rates`.
    """
    factors = {} if layer_decay == 1 else scale_rates(model, layer_decay)
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    decayed = [each for each in trainable if not is_plain(*each)]
    plain = [each for each in trainable if is_plain(*each)]
    return [
        {"params": [p for _, p in named], "lr_multiplier": factor, "wd_multiplier": decays, "weight_decay": 0.0}
        for decays, part in ((1.0, decayed), (0.0, plain))
        for factor, named in itertools.groupby(part, lambda each: factors.get(each[0], 1.0))
    ]


def is_plain(name: str, parameter: nn.Parameter) -> bool:
    """Returns whether a parameter has no weight decay."""
    return name.endswith(".bias") or parameter.ndim == 1


def set_schedules(optimizer: torch.optim.Optimizer, lr: float, weight_decay: float) -> None:
    """Sets the learning rate and the weight decay of each group, by its factors."""
    for group in optimizer.param_groups:  # a numpy scalar in the optimizer's state could not be loaded by weights_only
        group["lr"] = float(lr) * group["lr_multiplier"]
        group["weight_decay"] = float(weight_decay) * group["wd_multiplier"]


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> torch.Tensor:
    """Scales each gradient by min(1, max_norm / (its norm + 1e-6)), if `max_norm` is not 0. There is no global norm.

    Returns the norms `[gradients]` from before.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = list(torch._foreach_norm(gradients))
    if max_norm:
        scale_to(gradients, norms, max_norm)
    return torch.stack([norm.float() for norm in norms])


def scale_to(gradients: list[torch.Tensor], norms: list[torch.Tensor], max_norm: float) -> None:
    """Scales the gradients in place to at most `max_norm`, without reading their norms on the host."""
    factors = torch._foreach_add(norms, 1e-6)
    torch._foreach_reciprocal_(factors)
    torch._foreach_mul_(factors, max_norm)
    torch._foreach_clamp_max_(factors, 1.0)
    torch._foreach_mul_(gradients, factors)


def freeze_last_layer(model: nn.Module) -> None:
    """Sets the gradients of both heads' prototypes to None, so that AdamW skips them in the coming step."""
    for name, parameter in model.named_parameters():
        if "last_layer" in name:
            parameter.grad = None


def freeze_backbone(model: nn.Module) -> None:
    """Sets the gradients of all but the heads to None, likewise. There is no weight decay nor moment of them then.

    They are computed all the same: several processes wait for each other's gradients of every parameter.
    """
    for parameter in model.get_submodule("esvit").parameters():
        parameter.grad = None


@torch.no_grad()
def flag_non_finite(losses: Sequence[torch.Tensor], norms: torch.Tensor) -> torch.Tensor:
    """Returns 1 if any of a step's losses (0-dim) or gradient norms `[n]` is not finite, on any process, else 0.

    The flag is float32, 0-dim, on the device. It never travels to the host in the step.
    """
    values = torch.cat([torch.stack(list(losses)).float(), norms])
    flag = (~values.isfinite()).any().float()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return flag


def apply_gradients(
    optimizer: torch.optim.Optimizer, skip: torch.Tensor, scaler: torch.amp.GradScaler | None = None
) -> None:
    """Takes a step of fused AdamW. If `skip` (0-dim, read on the device) is 1, weights, moments and step counts stay.

    A `scaler`, which must have unscaled the gradients before, then updates its scale.
    """
    optimizer.found_inf = skip  # type: ignore[attr-defined]
    # scaler.step() would use its own flag, which knows neither the loss nor norms that overflow.
    optimizer.step()
    if scaler is not None:
        scaler.update()


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float, skip: torch.Tensor) -> None:
    """Moves the teacher: theta_t <- momentum theta_t + (1 - momentum) theta_s over all parameters.

    Buffers (statistics of BatchNorms, centres) are not averaged. If `skip` (0-dim, on the device) is 1, nothing
    changes, whatever theta_s is.
    """
    averaged: list[torch.Tensor] = [*teacher.parameters()]
    current: list[torch.Tensor] = [*student.parameters()]
    # This is one step of SGD with the rate 1 - momentum: weight decay gives theta_t, the maximised gradient theta_s.
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
