# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Numbers the classes of training and test data alike, and scores rankings of classes."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from training.evaluation.class_names import check_common, number_classes


TOP_K = (1, 5)
METRIC = Path(__file__).parent / "metrics" / "top_k_accuracy"
NO_CLASS = -1  # pads rankings, and labels test images that belong to no training class


def align_labels(
    train: Tensor, test: Tensor, train_names: list[str] | None, test_names: list[str] | None
) -> tuple[Tensor, Tensor, int]:
    """Numbers the classes of the training data 0 .. n-1, and those of the test data alike, or as NO_CLASS.

    `number_classes` says which classes are the same.

    Returns:
        train labels `[N]`, test labels `[M]`, n.

    Raises:
        ClassNameError: the classes cannot be compared, or none is in both.
    """
    places = number_classes([train_names, test_names])
    train, test = (
        labels if place is None else place[labels] for place, labels in zip(places, (train, test), strict=True)
    )
    check_common(train, test, train_names, test_names)
    classes, train = train.unique(return_inverse=True)
    position = torch.searchsorted(classes, test).clamp(max=len(classes) - 1)
    return train, position.where(classes[position] == test, NO_CLASS), len(classes)


def list_tops(classes: int) -> tuple[int, ...]:
    """Returns those of TOP_K that say something: the best five of five classes or fewer hold every one."""
    return tuple(k for k in TOP_K if k == 1 or k < classes)


def score_top_k(ranking: Tensor, labels: Tensor, classes: int) -> dict[str, float]:
    """Returns {"top1": share in 0..1, "top5": ...} for rankings `[N, >= 5]`, best class first, and labels `[N]`.

    There is no "top5" of five `classes` or fewer, see [`list_tops`].
    """
    import evaluate

    metric = evaluate.load(str(METRIC), keep_in_memory=True)
    return metric.compute(predictions=ranking.numpy(), references=labels.numpy(), top_k=list_tops(classes))


def find_tops(names: Iterable[str]) -> list[int]:
    """Returns those of TOP_K that a result has, by the `names` of its entries, such as "top1" or "k20_top1"."""
    return [k for k in TOP_K if any(name.rpartition("_")[2] == f"top{k}" for name in names)]
