# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains and scores a linear classifier, and k-NN beside it, on stored features."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.evaluation.comparison import find_chance
from training.evaluation.knn import TEMPERATURE, knn_predict
from training.evaluation.linear_fit import SOLVERS, HeldOutError, choose_l2_by_accuracy, draw_shots
from training.evaluation.scores import NO_CLASS, align_labels, score_top_k
from training.features.bank import FeatureBank


KNN_K = 20  # neighbours of the low-shot k-NN, or all images if there are fewer


@dataclass(frozen=True)
class FitOptions:
    """Holds the options of training a linear classifier on stored features.

    Attributes:
        solver: a name of `linear_fit.SOLVERS`.
        l2: penalties to choose from.
        held_out: share of the training images that is held out for the choice.
        shots: numbers of training images of each class, as shares ("1%") or counts ("5"). None uses all images once.
        seeds: seeds of the draws, with one result each.
    """

    solver: str
    l2: list[float]
    held_out: float
    shots: list[str] | None
    seeds: list[int]


def train_and_score(
    options: FitOptions, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int, seed: int
) -> dict[str, Any]:
    """Trains on `train`, and returns the accuracies on `test` with the chosen l2; both are features and labels."""
    fit = SOLVERS[options.solver]
    l2, scores = options.l2[0], dict[float, float]()
    if len(options.l2) > 1:
        l2, scores = choose_l2_by_accuracy(fit, *train, classes, options.l2, options.held_out, seed)
    [linear] = fit(*train, classes, [l2])
    held_out = {f"{penalty:g}": score for penalty, score in scores.items()}
    return score_top_k(linear.rank(test[0]), test[1], classes) | {"l2": l2, "held_out_top1": held_out}


def score_neighbours(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int) -> dict[str, float]:
    k = min(KNN_K, len(train[1]))
    rankings = knn_predict(*train, test[0], k=[k], num_classes=classes, temperature=TEMPERATURE, device=train[0].device)
    return score_top_k(rankings[k], test[1], classes)


def score_low_shot(
    options: FitOptions, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int
) -> Iterator[dict[str, Any]]:
    """Yields for each of `shots` the number of images, and top-1 of both classifiers for each seed.

    Of shots that are too few to choose a penalty it yields the reason as "skipped".

    Raises:
        HeldOutError: a number of shots is none.
    """
    for shots in options.shots or []:
        draws = [draw_shots(train[1].cpu(), shots, seed) for seed in options.seeds]
        parts = [(train[0][rows.to(train[0].device)], train[1][rows.to(train[1].device)]) for rows in draws]
        row = {"shots": shots, "images": len(draws[0])}
        try:
            linear = [
                train_and_score(options, part, test, classes, seed)
                for part, seed in zip(parts, options.seeds, strict=True)
            ]
        except HeldOutError as error:
            yield row | {"skipped": str(error)}
            continue
        neighbours = [score_neighbours(part, test, classes) for part in parts]
        yield row | {
            options.solver: [scores["top1"] for scores in linear],
            "l2": [scores["l2"] for scores in linear],
            "knn": [scores["top1"] for scores in neighbours],
        }


def score_all_shots(
    options: FitOptions, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int
) -> dict[str, Any]:
    """Returns the rows of those shots that are enough, and why others are skipped, by name.

    Raises:
        HeldOutError: none is enough.
    """
    rows = list(score_low_shot(options, train, test, classes))
    skipped = {row["shots"]: row["skipped"] for row in rows if "skipped" in row}
    if len(skipped) == len(rows):
        raise HeldOutError(rows[0]["skipped"])
    return {"low_shot": [row for row in rows if "skipped" not in row], "skipped": skipped}


def evaluate_features(
    options: FitOptions, bank: FeatureBank, queries: FeatureBank, device: torch.device
) -> dict[str, Any]:
    labels, test_labels, classes = align_labels(bank.labels, queries.labels, bank.class_names, queries.class_names)
    where = device if device.type == "cuda" else torch.device("cpu")  # some devices lack float64
    train = bank.features().to(where), labels.to(where)
    test = queries.features(), test_labels
    result = {
        "solver": options.solver,
        "train_images": len(labels),
        "test_images": len(test_labels),
        "classes": classes,
        "unknown_class_images": int((test_labels == NO_CLASS).sum()),
        "chance": find_chance(labels, test_labels),
    }
    if options.shots:
        return result | {"seeds": options.seeds} | score_all_shots(options, train, test, classes)
    return result | train_and_score(options, train, test, classes, options.seeds[0])
