# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Numbers the classes of training and test data alike, and scores rankings of classes."""

from pathlib import Path

import torch
from torch import Tensor


TOP_K = (1, 5)
METRIC = Path(__file__).parent / "metrics" / "top_k_accuracy"
NO_CLASS = -1  # pads rankings, and labels test images that belong to no training class


def align_labels(
    train: Tensor, test: Tensor, train_names: list[str] | None, test_names: list[str] | None
) -> tuple[Tensor, Tensor, int]:
    """Numbers the classes of the training data 0 .. n-1, and those of the test data alike, or as NO_CLASS.

    Classes are the same if their names are equal or, if either data set has no names, if their numbers are equal.

    Returns:
        train labels `[N]`, test labels `[M]`, n.
    """
    if train_names is not None and test_names is not None:
        number = {name: index for index, name in enumerate(train_names)}
        test = torch.tensor([number.get(name, NO_CLASS) for name in test_names])[test]
    classes, train = train.unique(return_inverse=True)
    position = torch.searchsorted(classes, test).clamp(max=len(classes) - 1)
    return train, position.where(classes[position] == test, NO_CLASS), len(classes)


def score_top_k(ranking: Tensor, labels: Tensor) -> dict[str, float]:
    """Returns {"top1": share in 0..1, "top5": ...} for rankings `[N, >= 5]`, best class first, and labels `[N]`."""
    import evaluate

    metric = evaluate.load(str(METRIC), keep_in_memory=True)
    return metric.compute(predictions=ranking.numpy(), references=labels.numpy(), top_k=TOP_K)
