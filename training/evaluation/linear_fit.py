# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Linear classifiers of features that are there already: logistic regression by L-BFGS, ridge in closed form.

All minimise a mean over the images plus `l2 / 2` times the squared norm of the weights, not of the biases:

    logistic     cross entropy; scikit-learn's LogisticRegression with C = 1 / (l2 N)
    one vs rest  for images of several classes: a logistic regression of each class against the others
    ridge        half the squared distance to +1 for the class and -1 for the others; its RidgeClassifier, alpha = l2 N
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
TOLERANCE = 1e-6  # largest entry of the gradient at which L-BFGS ends


class HeldOutError(EsViTError, ValueError):
    """No image can be held out, or too few are there."""


class Linear(NamedTuple):
    """logits = features @ weight.T + bias; [K, C] and [K]."""

    weight: Tensor
    bias: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Logits [N, K] on the CPU."""
        return torch.cat([self.logits(rows).cpu() for rows in features.split(ROWS)])

    def ranking(self, features: Tensor, k: int = 5) -> Tensor:
        """The k most likely classes of [N, C], best first, -1 where there are fewer: [N, k] on the CPU."""
        best = [self.best(rows, k) for rows in features.split(ROWS)]
        return F.pad(torch.cat(best), (0, max(k - len(self.bias), 0)), value=-1)

    def best(self, features: Tensor, k: int) -> Tensor:
        return self.logits(features).topk(min(k, len(self.bias)), dim=1).indices.cpu()

    def logits(self, features: Tensor) -> Tensor:
        return F.linear(features.to(self.weight), self.weight, self.bias)


Fit = Callable[[Tensor, Tensor, int, Sequence[float]], list[Linear]]
Loss = Callable[[Tensor, Tensor], Tensor]  # logits [n, K] and targets of n images -> the sum of their losses


def fit_logistic(features: Tensor, labels: Tensor, num_classes: int, l2: Sequence[float]) -> list[Linear]:
    """For each l2 the multinomial logistic regression of labels [N] on features [N, C], in float64, on their device.

    Each fit begins with the result of the next larger l2.
    """
    return fit_by_descent(partial(F.cross_entropy, reduction="sum"), features, labels, num_classes, l2)


def fit_one_vs_rest(features: Tensor, targets: Tensor, num_classes: int, l2: Sequence[float]) -> list[Linear]:
    """As `fit_logistic`, of targets [N, K], 1 for each class of an image and else 0: K regressions side by side."""
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
    """Weights and biases [K, C + 1] at the minimum."""
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
        total = 0.0
        for rows, wanted in zip(features.split(ROWS), targets.split(ROWS), strict=True):
            logits = F.linear(rows.double(), parameters[:, :-1], parameters[:, -1])
            part = loss(logits, wanted) / len(targets)
            part.backward()
            total += part.item()
        penalty = l2 / 2 * parameters[:, :-1].square().sum()
        penalty.backward()
        return total + penalty.item()

    optimizer.step(objective)
    return parameters.detach()


def fit_ridge(features: Tensor, labels: Tensor, num_classes: int, l2: Sequence[float]) -> list[Linear]:
    """For each l2 the ridge regression of +1 (the label's class) and -1 on features [N, C], in float64.

    One pass over the features and one eigendecomposition of [C, C] serve all of them.
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


def held_out(labels: Tensor, share: float, seed: int) -> Tensor:
    """Which images [N] are held out: of each class `share`, rounded, at least one stays.

    Raises:
        HeldOutError: none is, since every class has too few.
    """
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    generator = np.random.default_rng(seed)
    for label in labels.unique().tolist():
        rows = generator.permutation((labels == label).nonzero()[:, 0].cpu().numpy())
        chosen[rows[: min(round(share * len(rows)), len(rows) - 1)]] = True
    if not chosen.any():
        raise HeldOutError(
            f"{len(labels)} training images of {len(labels.unique())} classes are too few to hold a share of {share} "
            "out, which chooses l2. Only linear_features.py needs none, if it is given one --l2."
        )
    return chosen


def chosen_l2(
    fit: Fit, features: Tensor, labels: Tensor, num_classes: int, l2: Sequence[float], share: float, seed: int
) -> tuple[float, dict[float, float]]:
    """The l2 with the highest top-1 accuracy on a held-out part, of equal ones the largest; and all accuracies."""
    aside = held_out(labels, share, seed).to(features.device)
    fits = fit(features[~aside], labels[~aside], num_classes, l2)
    truth = labels[aside].cpu()
    scores = [(linear.ranking(features[aside], 1)[:, 0] == truth).double().mean().item() for linear in fits]
    found = dict(zip(l2, scores, strict=True))
    return max(found, key=lambda penalty: (found[penalty], penalty)), found


def draw_shots(labels: Tensor, shots: str, seed: int) -> Tensor:
    """Row numbers of a subset of the images: "1%" of each class (rounded, at least one), or so many ("5") of each.

    Raises:
        HeldOutError: `shots` is neither.
    """
    share = shots.endswith("%")
    try:
        number = float(shots.removesuffix("%")) if share else int(shots)
    except ValueError as error:
        raise HeldOutError(f"{shots!r} is neither a share such as 1% nor a number of images a class.") from error
    if number <= 0 or (share and number > 100):
        raise HeldOutError(f"{shots!r} images of each class cannot be drawn: name up to 100%, or 1 or more.")
    generator, rows = np.random.default_rng(seed), []
    for label in labels.unique().tolist():
        own = generator.permutation((labels == label).nonzero()[:, 0].cpu().numpy())
        rows.append(np.sort(own[: max(1, round(len(own) * number / 100)) if share else int(number)]))
    return torch.from_numpy(np.concatenate(rows))
