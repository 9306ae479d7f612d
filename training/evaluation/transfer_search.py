# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Chooses the penalty of a linear classifier as ELEVATER does (arXiv 2204.08790), the toolkit of the paper's table.

There are 97 values of l2 from 1e-6 to 1e6. Seven are tried first, then the neighbours of the best one at distances of
8, 4, 2 and 1. Features are standardised as by the toolkit's BatchNorm, so that a value means the same for any model.

The toolkit fits by SGD and also searches its learning rate (1e-6 .. 0.1). Here L-BFGS reaches the minimum, as in CLIP's
linear probes, so there is no learning rate to choose. The toolkit, by an oversight, tries the lower neighbour twice;
here both neighbours are tried.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.evaluation.linear_fit import (
    HeldOutError,
    Linear,
    draw_held_out,
    draw_shots,
    fit_logistic,
    fit_one_vs_rest,
)
from training.evaluation.transfer_metrics import MULTI_LABEL, score


L2 = np.logspace(-6, 6, 97).tolist()
COARSE = range(0, 97, 16)
SPANS = (8, 4, 2, 1)
HELD_OUT = 0.2  # share of the training images, if a data set has no validation split
EPSILON = 1e-5  # as in BatchNorm


class Standardisation(NamedTuple):
    """Standardises features: subtracts `mean` `[C]` and multiplies by `scale` `[C]`."""

    mean: Tensor
    scale: Tensor

    @classmethod
    def from_features(cls, features: Tensor) -> "Standardisation":
        variance, mean = torch.var_mean(features, dim=0, correction=0)
        return cls(mean, (variance + EPSILON).rsqrt())

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean.to(features.device)) * self.scale.to(features.device)


def search_l2(evaluate: Callable[[Sequence[float]], list[float]]) -> tuple[float, dict[float, float]]:
    """Searches l2 from coarse to fine; returns the best one, the largest if several tie, and the scores of all tried.

    Args:
        evaluate: scores values of l2. Higher is better.
    """
    found: dict[int, float] = {}

    def try_places(places: Sequence[int]) -> int:
        new = [place for place in places if place in range(len(L2)) and place not in found]
        if new:
            found.update(zip(new, evaluate([L2[place] for place in new]), strict=True))
        return max(found, key=lambda place: (found[place], place))

    best = try_places(COARSE)
    for span in SPANS:
        best = try_places([best - span, best + span])
    return L2[best], {L2[place]: found[place] for place in sorted(found)}


def fit(metric: str, features: Tensor, targets: Tensor, num_classes: int, l2: Sequence[float]) -> list[Linear]:
    solve = fit_one_vs_rest if metric == MULTI_LABEL else fit_logistic
    return solve(features, targets, num_classes, l2)


def split_for_tuning(targets: Tensor, validation: int, *, per_class: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Returns the row numbers of the images to fit on, and of those to score on, while l2 is chosen.

    Args:
        targets: labels `[N]` or targets `[N, K]` of the training images, the validation split last.
        validation: size of the validation split. If it is 0, a share of HELD_OUT takes its place, drawn from each class
            (labels) or from all images (targets).
        per_class: fit on at most this many images of each class.

    Raises:
        HeldOutError: there are too few images to hold any out.
    """
    rows = torch.arange(len(targets))
    if validation:
        aside = rows >= len(targets) - validation
    elif targets.ndim == 1:
        aside = draw_held_out(targets, HELD_OUT, seed)
    else:
        aside = torch.zeros(len(targets), dtype=torch.bool)
        chosen = np.random.default_rng(seed).permutation(len(targets))[: round(HELD_OUT * len(targets))]
        aside[torch.from_numpy(chosen)] = True
    if not aside.any() or aside.all():
        raise HeldOutError(f"{len(targets)} training images are too few to hold out a share of {HELD_OUT}.")
    training = rows[~aside]
    if per_class is not None:
        training = training[draw_shots(targets[training], str(per_class), seed)]
    return training, rows[aside]


def choose_l2(
    metric: str,
    features: Tensor,
    targets: Tensor,
    num_classes: int,
    parts: tuple[Tensor, Tensor],
    step: Callable[[], object],
) -> tuple[float, dict[float, float]]:
    """Searches l2 by `metric`. Fits classifiers on the first of `parts` and scores them on the second.

    Calls `step` after each fit. Returns the result of `search_l2`.
    """
    training, aside = parts
    own, wanted = features[training], targets[training]

    def evaluate(l2: Sequence[float]) -> list[float]:
        scores = []
        for linear in fit(metric, own, wanted, num_classes, l2):
            scores.append(score(metric, linear.score(features[aside]), targets[aside].cpu()))
            step()
        return scores

    return search_l2(evaluate)
