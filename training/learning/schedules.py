# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes the values that change during training, one for each step or epoch, once and in float64."""

import numpy as np

from modeling_esvit.errors import EsViTError


class ScheduleError(EsViTError, ValueError):
    """Raised when a warm-up is longer than the training."""


def cosine_schedule(
    base: float, final: float, epochs: int, steps_per_epoch: int, warmup_epochs: int = 0, start: float = 0.0
) -> np.ndarray:
    """Returns a warm-up and half a cosine, one value for each step: `[epochs * steps_per_epoch]`, float64.

    The warm-up is linear from `start` to `base`, both included. The cosine goes from `base` towards `final`, which the
    last step does not quite reach.
    """
    warmup_steps = warmup_epochs * steps_per_epoch
    rest = epochs * steps_per_epoch - warmup_steps
    if rest < 0:
        raise ScheduleError(f"A warm-up of {warmup_epochs} epochs does not fit into {epochs} epochs.")
    warmup = np.linspace(start, base, warmup_steps)
    cosine = final + 0.5 * (base - final) * (1 + np.cos(np.pi * np.arange(rest) / max(rest, 1)))
    return np.concatenate([warmup, cosine])


def teacher_temp_schedule(warmup_temp: float, temp: float, warmup_epochs: int, epochs: int) -> np.ndarray:
    """Returns tau_t of each epoch, `[epochs]`, float64: linear over the warm-up, both ends included, then constant."""
    if warmup_epochs > epochs:
        raise ScheduleError(f"A temperature warm-up of {warmup_epochs} epochs does not fit into {epochs} epochs.")
    return np.concatenate([np.linspace(warmup_temp, temp, warmup_epochs), np.full(epochs - warmup_epochs, temp)])
