# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares accuracies with those of other models, of the untrained network, and of chance."""

import math
from collections.abc import Mapping

from torch import Tensor

from training.evaluation.results import format_table


CHANCE = "chance"
SPREAD = 1.96  # standard errors, within which 95% of the results of equal models lie


def find_chance(train: Tensor, test: Tensor) -> float:
    """Returns the accuracy, in 0..1, of naming the most frequent class of the training labels for each test image."""
    return (test == train.mode().values).double().mean().item()


def format_comparison(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns the lines of a table of shares: a row for each model, with its values by their names."""
    columns = list(dict.fromkeys(name for values in scores.values() for name in values))
    rows = [
        [model, *(f"{values[name]:.2%}" if name in values else "" for name in columns)]
        for model, values in scores.items()
    ]
    return format_table(["model", *columns], rows)


def conclude(name: str, scores: Mapping[str, float], count: int, counted: str = "test images") -> str:
    """Says in words by how much the accuracy of the model `name` differs from the other ones of `scores`.

    Each of `count` images counts once, as if the models erred independently: differences that may be due to the choice
    of the images are called so. `counted` says what they are.
    """
    own = scores[name]
    parts = [describe_difference(own, other, count, counted, model) for model, other in scores.items() if model != name]
    return f"{name}: {'; '.join(parts)}." if parts else ""


def describe_difference(own: float, other: float, count: int, counted: str, model: str) -> str:
    """Says by how many points one accuracy, of so many images, differs from that of `model`."""
    margin = SPREAD * math.sqrt((own * (1 - own) + other * (1 - other)) / max(count, 1))
    points = f"{abs(own - other) * 100:.1f} points {'above' if own >= other else 'below'} {model}"
    return points if abs(own - other) > margin else f"{points} (which {count} {counted} cannot tell apart)"
