# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Normalises batches of one process or of all processes, on any device.

(`nn.SyncBatchNorm` takes no tensors of a CPU.) Normalising and moving the running statistics are two steps, so that a
block that is computed again in the backward pass (gradient checkpointing) does not move them twice.
"""

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.distributed import all_gather_into_tensor, all_reduce, get_world_size
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import initialization as init

from .backbone_probe import EsViTBackboneError


class BatchStatistics(NamedTuple):
    """Holds the mean and the unbiased variance of each channel of a batch, `[C]` both."""

    mean: torch.Tensor
    variance: torch.Tensor


def list_other_dims(x: torch.Tensor) -> list[int]:
    """Returns all dimensions but that of the channels."""
    return [0, *range(2, x.ndim)]


def broadcast_channels(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Views `[C]` so that it can be broadcast over `x` `[n, C, ...]`."""
    return values.view(-1, *[1] * (x.ndim - 2))


class JointBatchNorm(torch.autograd.Function):
    """Normalises by the statistics of the batches of all processes.

    The gradient is that of the sum of the processes' losses; those of weight and bias are this process's share, as
    DistributedDataParallel expects them.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float):
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(exact, list_other_dims(x), correction=0)
        count = mean.new_full((1,), x.numel() / len(mean))
        local = torch.cat([mean, variance, count])
        joint = local.new_empty(get_world_size() * len(local))
        all_gather_into_tensor(joint, local)
        joint = joint.view(-1, len(local))
        means, variances, counts = joint.split([len(mean), len(mean), 1], dim=1)
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        variance = (counts * (variances + (means - mean).square())).sum(0) / total
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), total)
        normalized = F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)
        variance = variance * total / (total - 1)
        ctx.mark_non_differentiable(mean, variance)
        return normalized, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor):
        x, weight, mean, scale, total = ctx.saved_tensors
        gradient = gradients[0].to(mean.dtype)
        unit = (x.to(mean.dtype) - broadcast_channels(mean, x)) * broadcast_channels(scale, x)
        sums = torch.stack([gradient.sum(list_other_dims(x)), (gradient * unit).sum(list_other_dims(x))])
        bias_gradient, weight_gradient = sums.clone()
        all_reduce(sums)
        shift, slope = sums / total
        centered = gradient - broadcast_channels(shift, x) - unit * broadcast_channels(slope, x)
        return (centered * broadcast_channels(weight * scale, x)).to(x.dtype), weight_gradient, bias_gradient, None


class EsViTBatchNorm(_BatchNorm):
    """Normalises `[n, C, ...]` as `nn.BatchNorm1d`, `2d` and `3d` do.

    With `joint` set, all processes have to call it together, and the batch is the union of theirs.
    """

    joint = False
    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor
    momentum: float

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Accepts any number of dimensions."""

    def init_weights(self, std: float) -> None:
        init.ones_(self.weight)
        init.zeros_(self.bias)
        init.zeros_(self.running_mean)
        init.ones_(self.running_var)
        init.zeros_(self.num_batches_tracked)

    def normalize(self, x: torch.Tensor) -> tuple[torch.Tensor, BatchStatistics | None]:
        """Normalises without moving the running statistics.

        In training also returns the statistics of the batch, for [`update`].
        """
        if not self.training:
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps), None
        if self.joint:
            normalized, mean, variance = JointBatchNorm.apply(x, self.weight, self.bias, self.eps)
            return normalized, BatchStatistics(mean, variance)
        # Running statistics that forget at once are those of the batch.
        batch = BatchStatistics(torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var))
        normalized = F.batch_norm(x, *batch, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps)
        return normalized, batch

    @torch.no_grad()
    def update(self, batch: BatchStatistics | None) -> None:
        """Moves the running statistics towards those of a batch; None, as in evaluation, moves nothing."""
        if batch is not None:
            self.running_mean.lerp_(batch.mean, self.momentum)
            self.running_var.lerp_(batch.variance, self.momentum)
            self.num_batches_tracked.add_(1)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        normalized, batch = self.normalize(input)
        self.update(batch)
        return normalized


class EsViTBatchNormAct(EsViTBatchNorm):
    """Stands for timm's `BatchNormAct2d`, which has dropout and an activation of its own."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.act(self.drop(super().forward(input)))


def join_batches(module: nn.Module) -> None:
    """Makes every BatchNorm inside `module` normalise over all processes. Parameters and buffers stay the same.

    Raises:
        EsViTBackboneError: one of them computes something else besides, or has no weights or running statistics.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                if not isinstance(child, EsViTBatchNorm):
                    parent.add_module(name, convert_norm(child))
                parent.get_submodule(name).joint = True  # type: ignore[assignment]  # of EsViTBatchNorm


# The keys are names of classes, so that timm need not be installed.
KINDS = {
    **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"), EsViTBatchNorm),
    "BatchNormAct2d": EsViTBatchNormAct,
}


def convert_norm(norm: _BatchNorm) -> EsViTBatchNorm:
    """Returns a norm of ours with the parameters, buffers and inner modules of another one."""
    kind = KINDS.get(type(norm).__name__)
    if kind is None or norm.momentum is None or not (norm.affine and norm.track_running_stats):
        raise EsViTBackboneError(
            f"{type(norm).__name__}({norm.extra_repr()}) cannot normalise over several processes; train this backbone "
            "in one."
        )
    own = kind(norm.num_features, norm.eps, norm.momentum, device="meta")
    for name, child in norm.named_children():
        own.add_module(name, child)
    for name, parameter in norm.named_parameters():
        setattr(own, name, parameter)
    for name, buffer in norm.named_buffers():
        setattr(own, name, buffer)
    return own.train(norm.training)
