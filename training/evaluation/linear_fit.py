# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Fits linear classifiers to features in memory: logistic regression by L-BFGS, ridge regression in closed form.

All minimise the mean loss of the images plus `l2 / 2` times the squared norm of the weights. Biases are not penalised.

    logistic     cross entropy; equals scikit-learn's LogisticRegression with C = 1 / (l2 N)
    one vs rest  a logistic regression of each class against the others, for images with several classes
    ridge        half the squared distance to +1 for the class and -1 for the others; equals scikit-learn's
                 RidgeClassifier with alpha = l2 N
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from modeling_esvit.errors import EsViTError


ROWS = 8192  # images whose logits exist at a time
MAX_ITERATIONS = 1000
TOLERANCE = 1e-6  # L-BFGS ends when no entry of the gradient is larger


class HeldOutError(EsViTError, ValueError):
    """Raised when there are too few images to hold any out, or a number of shots cannot be used."""


class Linear(NamedTuple):
    """Holds a linear classifier, `logits = features @ weight.T + bias`, with weight `[K, C]` and bias `[K]`."""

    weight: Tensor
    bias: Tensor

    def score(self, features: Tensor) -> Tensor:
        """Returns the logits `[N, K]` of features `[N, C]`, on the CPU."""
        return torch.cat([self.compute_logits(rows).cpu() for rows in features.split(ROWS)])

    def rank(self, features: Tensor, k: int = 5) -> Tensor:
        """Returns the k most likely classes of features `[N, C]`, best first: `[N, k]` on the CPU, padded with -1."""
        best = [self.rank_rows(rows, k) for rows in features.split(ROWS)]
        return F.pad(torch.cat(best), (0, max(k - len(self.bias), 0)), value=-1)

    def rank_rows(self, features: Tensor, k: int) -> Tensor:
        return self.compute_logits(features).topk(min(k, len(self.bias)), dim=1).indices.cpu()

    def compute_logits(self, features: Tensor) -> Tensor:
        return F.linear(features.to(self.weight), self.weight, self.bias)


Fit = Callable[[Tensor, Tensor, int, Sequence[float]], list[Linear]]
Loss = Callable[[Tensor, Tensor], Tensor]  # logits [n, K] and targets of n images -> the sum of their losses


def fit_logistic(features: Tensor, labels: Tensor, num_classes: int, l2: Sequence[float]) -> list[Linear]:
    """Fits a multinomial logistic regression for each l2 to features `[N, C]` and labels `[N]`.

    Computes in float64 on the device of the features. Each fit starts from the result of the next larger l2.
    """
    return fit_by_descent(partial(F.cross_entropy, reduction="sum"), features, labels, num_classes, l2)


def fit_one_vs_rest(features: Tensor, targets: Tensor, num_classes: int, l2: Sequence[float]) -> list[Linear]:
    """Fits K binary logistic regressions side by side for each l2, to features `[N, C]` and targets `[N, K]`.

    A target is 1 for each class of an image and 0 for the others. `fit_logistic` describes the rest.
    """
    loss = partial(F.binary_cross_entropy_with_logits, reduction="sum")
    return fit_by_descent(loss, features, targets.double(), num_classes, l2)


def fit_by_descent(
    loss: Loss, features: Tensor, targets: Tensor, num_classes: int, l2: Sequence[float]
) -> list[Linear]:
    start = features.new_zeros(num_classes, features.shape[1] + 1, dtype=torch.float64)
    found = {}
    for penalty in sorted(set(l2), reverse=True):
        start = descend(loss, features, targets, start, penalty)
        found[penalty] = Linear(start[:, :-1].clone(), start[:, -1].clone())
    return [found[penalty] for penalty in l2]


def descend(loss: Loss, features: Tensor, targets: Tensor, start: Tensor, l2: float) -> Tensor:
    """Returns weights and biases `[K, C + 1]` at the minimum."""
    parameters = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=MAX_ITERATIONS,
        tolerance_grad=TOLERANCE,
        tolerance_change=0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> float:
        optimizer.zero_grad()
        total = parameters.new_zeros(())
        for rows, wanted in zip(features.split(ROWS), targets.split(ROWS), strict=True):
            logits = F.linear(rows.double(), parameters[:, :-1], parameters[:, -1])
            part = loss(logits, wanted) / len(targets)
            part.backward()
            total += part.detach()
        penalty = l2 / 2 * parameters[:, :-1].square().sum()
        penalty.backward()
        return (total + penalty.detach()).item()

    optimizer.step(objective)
    return parameters.detach()


def fit_ridge(features: Tensor, labels: Tensor, num_classes: int, l2: Sequence[float]) -> list[Linear]:
    """Fits a ridge regression for each l2 to features `[N, C]`, with the target +1 for the label's class and -1 else.

    Computes in float64. One pass over the features and one eigendecomposition of `[C, C]` serve all values of l2.
    """
    count, mean = len(features), torch.stack([rows.double().sum(dim=0) for rows in features.split(ROWS)]).sum(dim=0)
    mean = mean / count
    target_mean = 2 * labels.bincount(minlength=num_classes).double() / count - 1
    gram, product = 0.0, 0.0
    for rows, targets in zip(features.split(ROWS), labels.split(ROWS), strict=True):
        centred = rows.double() - mean
        gram = gram + centred.T @ centred / count
        product = product + centred.T @ (2 * F.one_hot(targets, num_classes).double() - 1 - target_mean) / count
    values, vectors = torch.linalg.eigh(gram)
    rotated = vectors.T @ product
    weights = [(vectors @ (rotated / (values.clamp(min=0) + penalty)[:, None])).T for penalty in l2]
    return [Linear(weight, target_mean - weight @ mean) for weight in weights]


SOLVERS: dict[str, Fit] = {"logistic": fit_logistic, "ridge": fit_ridge}


def draw_held_out(labels: Tensor, share: float, seed: int) -> Tensor:
    """Draws the images to hold out, as a mask `[N]`: a rounded `share` of each class, of which at least one stays.

    Raises:
        HeldOutError: every class has too few images, so that none is held out.
    """
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    generator = np.random.default_rng(seed)
    for label in labels.unique().tolist():
        rows = generator.permutation((labels == label).nonzero()[:, 0].cpu().numpy())
        chosen[rows[: min(round(share * len(rows)), len(rows) - 1)]] = True
    if not chosen.any():
        raise HeldOutError(
            f"{len(labels)} training images of {len(labels.unique())} classes are too few to hold out a share of "
            f"{share}, which chooses l2. Use more images. linear_features.py also works if it is given one --l2."
        )
    return chosen


def choose_l2_by_accuracy(
    fit: Fit, features: Tensor, labels: Tensor, num_classes: int, l2: Sequence[float], share: float, seed: int
) -> tuple[float, dict[float, float]]:
    """Returns the l2 with the best top-1 accuracy on a held-out part, the largest of several, and all accuracies."""
    aside = draw_held_out(labels, share, seed).to(features.device)
    fits = fit(features[~aside], labels[~aside], num_classes, l2)
    truth = labels[aside].cpu()
    scores = [(linear.rank(features[aside], 1)[:, 0] == truth).double().mean().item() for linear in fits]
    found = dict(zip(l2, scores, strict=True))
    return max(found, key=lambda penalty: (found[penalty], penalty)), found


def draw_shots(labels: Tensor, shots: str, seed: int) -> Tensor:
    """Draws a subset of the images and returns its row numbers.

    Args:
        shots: a share of each class ("1%", rounded, at least one image), or a number of images of each ("5").

    Raises:
        HeldOutError: `shots` is neither.
    """
    share = shots.endswith("%")
    try:
        number = float(shots.removesuffix("%")) if share else int(shots)
    except ValueError as error:
        raise HeldOutError(f"{shots!r} is neither a share such as 1% nor a number of images such as 5.") from error
    if number <= 0 or (share and number > 100):
        raise HeldOutError(
            f"{shots!r} images of each class cannot be drawn. Name a share up to 100%, or a number from 1 on."
        )
    generator, rows = np.random.default_rng(seed), []
    for label in labels.unique().tolist():
        own = generator.permutation((labels == label).nonzero()[:, 0].cpu().numpy())
        rows.append(np.sort(own[: max(1, round(len(own) * number / 100)) if share else int(number)]))
    return torch.from_numpy(np.concatenate(rows))
