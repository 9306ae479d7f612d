# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains linear classifiers of one feature together, with several learning rates and numbers of last blocks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from accelerate.utils import reduce
from torch import Tensor, nn
from torch.nn import functional as F


MOMENTUM = 0.9
INITIAL_STD = 0.01
REFERENCE_BATCH = 256  # images in a step, to which learning rates refer


class Setting(NamedTuple):
    """Holds the settings of a classifier: the last `width` columns of a feature, and the learning rate (256 images)."""

    name: str
    width: int
    lr: float


def make_linear(width: int, num_classes: int, seed: int) -> nn.Linear:
    linear = nn.Linear(width, num_classes)
    nn.init.normal_(linear.weight, std=INITIAL_STD, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(linear.bias)
    return linear


class LinearProbes:
    """Trains every classifier on the same features, as if it were alone.

    All classifiers of one width are one matrix product. Weights start normal with standard deviation 0.01 (drawn by
    `seed`), biases at 0. SGD has momentum 0.9 and no weight decay. The learning rate starts at `lr * batch_size / 256`
    and follows a cosine over the epochs.

    Args:
        settings: one for each classifier.
        batch_size: images in a step of all processes together.
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        num_classes: int,
        *,
        epochs: int,
        batch_size: int,
        seed: int,
        device: torch.device | str,
    ) -> None:
        self.settings, self.device = list(settings), device
        self.linears = nn.ModuleList(make_linear(setting.width, num_classes, seed) for setting in settings).to(device)
        scale = batch_size / REFERENCE_BATCH
        groups = [
            {"params": linear.parameters(), "lr": setting.lr * scale}
            for linear, setting in zip(self.linears, settings, strict=True)
        ]
        self.optimizer = torch.optim.SGD(groups, momentum=MOMENTUM)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, epochs)

    def compute_logits(self, features: Tensor) -> list[Tensor]:
        """Returns the logits `[B, num_classes]` of each classifier for features `[B, C]`."""
        result: list[Tensor] = [features] * len(self.settings)
        for width in {setting.width for setting in self.settings}:
            numbers = [number for number, setting in enumerate(self.settings) if setting.width == width]
            weight = torch.cat([self.linears[number].weight for number in numbers])  # type: ignore[misc]
            bias = torch.cat([self.linears[number].bias for number in numbers])  # type: ignore[misc]
            together = F.linear(features[:, -width:], weight, bias)
            for number, logits in zip(numbers, together.chunk(len(numbers), dim=1), strict=True):
                result[number] = logits
        return result

    def step(self, features: Tensor, labels: Tensor) -> Tensor:
        """Takes one step; returns the mean loss `[classifiers]` over the batches of all processes.

        All processes must call it, each with its own features `[b, C]` and labels `[b]`, where b may be 0.
        """
        losses = torch.stack(
            [F.cross_entropy(logits, labels, reduction="sum") for logits in self.compute_logits(features)]
        )
        self.optimizer.zero_grad()
        losses.sum().backward()
        parameters = list(self.linears.parameters())
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        count = torch.tensor([float(len(labels))], device=features.device)
        sums = torch.cat([count, losses.detach(), *(gradient.flatten() for gradient in gradients)])
        sums = reduce(sums, "sum")
        means = sums / sums[0].clamp(min=1)
        parts = means[1 + len(losses) :].split([parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)
        self.optimizer.step()
        return means[1 : 1 + len(losses)]

    def end_epoch(self) -> None:
        self.scheduler.step()

    @torch.no_grad()
    def rank(self, features: Tensor, k: int = 5) -> Tensor:
        """Ranks the k most likely classes of features `[B, C]`: `[classifiers, B, k]` on the CPU, padded with -1."""
        best = [
            logits.topk(min(k, logits.shape[1]), dim=1).indices
            for logits in self.compute_logits(features.to(self.device))
        ]
        stacked = torch.stack(best)
        return F.pad(stacked, (0, k - stacked.shape[2]), value=-1).cpu()

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name).state_dict() for name in ("linears", "optimizer", "scheduler")}

    def load_state(self, state: dict[str, Any]) -> None:
        for name in ("linears", "optimizer", "scheduler"):
            getattr(self, name).load_state_dict(state[name])
