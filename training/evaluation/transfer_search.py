# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The automatic choice of the penalty of a linear classifier, as in the toolkit of the paper's transfer table (ELEVATER,
arXiv 2204.08790): 97 values of l2 from 1e-6 to 1e6, of which 7 are tried first, then the neighbours of the best one at
distances of 8, 4, 2 and 1. Features are standardised as by its BatchNorm, so that a value means the same for any model.

The toolkit fits by SGD, whose learning rate it also searches (1e-6 .. 0.1). Here L-BFGS goes to the minimum, as in
CLIP's linear probes, which leaves no learning rate to choose. And where the toolkit, by an oversight, tries the lower
neighbour twice, both are tried here.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.evaluation.linear_fit import HeldOutError, Linear, draw_shots, fit_logistic, fit_one_vs_rest, held_out
from training.evaluation.transfer_metrics import MULTI_LABEL, score


L2 = np.logspace(-6, 6, 97).tolist()
COARSE = range(0, 97, 16)
SPANS = (8, 4, 2, 1)
HELD_OUT = 0.2  # of the training images, if a data set has no validation split
EPSILON = 1e-5  # of BatchNorm


class Standardisation(NamedTuple):
    """Features minus `mean` [C], times `scale` [C]."""

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Standardisation":
        variance, mean = torch.var_mean(features, dim=0, correction=0)
        return cls(mean, (variance + EPSILON).rsqrt())

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean.to(features.device)) * self.scale.to(features.device)


def coarse_to_fine(evaluate: Callable[[Sequence[float]], list[float]]) -> tuple[float, dict[float, float]]:
    """The best l2 that was tried, of equally good ones the largest, and the scores of all that were.

    Args:
        evaluate: scores of values of l2, higher is better.
    """
    found: dict[int, float] = {}

    def look_at(places: Sequence[int]) -> int:
        new = [place for place in places if place in range(len(L2)) and place not in found]
        if new:
            found.update(zip(new, evaluate([L2[place] for place in new]), strict=True))
        return max(found, key=lambda place: (found[place], place))

    best = look_at(COARSE)
    for span in SPANS:
        best = look_at([best - span, best + span])
    return L2[best], {L2[place]: found[place] for place in sorted(found)}


def fit(metric: str, features: Tensor, targets: Tensor, num_classes: int, l2: Sequence[float]) -> list[Linear]:
    solve = fit_one_vs_rest if metric == MULTI_LABEL else fit_logistic
    return solve(features, targets, num_classes, l2)


def tuning_parts(targets: Tensor, validation: int, *, per_class: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Row numbers of the images to fit and to score on while l2 is chosen.

    Args:
        targets: of the training images, the last `validation` of which are the validation split. If there are none,
            HELD_OUT of them take its place: of labels [N] of each class, of targets [N, K] of all.
        per_class: fit on at most so many images of each class.

    Raises:
        HeldOutError: too few images to hold any out.
    """
    rows = torch.arange(len(targets))
    if validation:
        aside = rows >= len(targets) - validation
    elif targets.ndim == 1:
        aside = held_out(targets, HELD_OUT, seed)
    else:
        aside = torch.zeros(len(targets), dtype=torch.bool)
        chosen = np.random.default_rng(seed).permutation(len(targets))[: round(HELD_OUT * len(targets))]
        aside[torch.from_numpy(chosen)] = True
    if not aside.any() or aside.all():
        raise HeldOutError(f"{len(targets)} training images are too few to hold a share of {HELD_OUT} out.")
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
    """As `coarse_to_fine`, by `metric` on the second of `parts`, of classifiers that were fitted on the first.

    `step` is called after each fit.
    """
    training, aside = parts
    own, wanted = features[training], targets[training]

    def evaluate(l2: Sequence[float]) -> list[float]:
        scores = []
        for linear in fit(metric, own, wanted, num_classes, l2):
            scores.append(score(metric, linear.scores(features[aside]), targets[aside].cpu()))
            step()
        return scores

    return coarse_to_fine(evaluate)
