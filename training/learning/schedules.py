# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Values that change during training, one for each step (or epoch), computed once in float64."""

import numpy as np

from modeling_esvit.errors import EsViTError


class ScheduleError(EsViTError, ValueError):
    """A warm-up that is longer than the training."""


def cosine_schedule(
    base: float, final: float, epochs: int, steps_per_epoch: int, warmup_epochs: int = 0, start: float = 0.0
) -> np.ndarray:
    """Linear from `start` to `base`, both included, over the warm-up; then half a cosine from `base` towards `final`,
    which the last step does not quite reach. Returns `[epochs * steps_per_epoch]`, float64.
    """
    warmup_steps = warmup_epochs * steps_per_epoch
    rest = epochs * steps_per_epoch - warmup_steps
    if rest < 0:
        raise ScheduleError(f"A warm-up of {warmup_epochs} epochs does not fit into {epochs} epochs.")
    warmup = np.linspace(start, base, warmup_steps)
    cosine = final + 0.5 * (base - final) * (1 + np.cos(np.pi * np.arange(rest) / max(rest, 1)))
    return np.concatenate([warmup, cosine])


def teacher_temp_schedule(warmup_temp: float, temp: float, warmup_epochs: int, epochs: int) -> np.ndarray:
    """tau_t of each epoch: linear over the warm-up, both ends included, then constant. Returns `[epochs]`, float64."""
    if warmup_epochs > epochs:
        raise ScheduleError(f"A temperature warm-up of {warmup_epochs} epochs does not fit into {epochs} epochs.")
    return np.concatenate([np.linspace(warmup_temp, temp, warmup_epochs), np.full(epochs - warmup_epochs, temp)])
