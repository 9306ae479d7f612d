# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the metrics of the transfer evaluation against scikit-learn and by hand."""

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from training.evaluation.transfer_metrics import MetricError, score


def random_scores(classes: int, count: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    return torch.randn(count, classes, generator=generator), torch.randint(classes, (count,), generator=generator)


def test_metrics_equal_scikit_learn():
    scores, labels = random_scores(4)
    predicted = scores.argmax(dim=1)
    assert score("accuracy", scores, labels) == pytest.approx((predicted == labels).double().mean().item())
    assert score("mean_per_class", scores, labels) == pytest.approx(balanced_accuracy_score(labels, predicted))
    scores, labels = random_scores(2)
    expected = roc_auc_score(labels, scores.softmax(dim=1)[:, 1])
    assert score("roc_auc", scores, labels) == pytest.approx(expected)


def test_images_of_no_training_class_are_wrong():
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    labels = torch.tensor([0, 1, -1])
    assert score("accuracy", scores, labels) == pytest.approx(2 / 3)
    assert score("mean_per_class", scores, labels) == pytest.approx(2 / 3)  # of two classes and the unknown one


def test_metrics_that_are_not_defined():
    with pytest.raises(MetricError, match=r"needs two classes.* There are 2 classes, and the images belong to \[0\]"):
        score("roc_auc", torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(MetricError, match="two classes"):
        score("roc_auc", *random_scores(3))
    with pytest.raises(MetricError, match="belongs to any class"):
        score("map_11_point", torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.int64))
