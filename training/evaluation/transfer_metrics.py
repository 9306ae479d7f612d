# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes the metrics of the transfer data sets, in 0..1, from the scores that a classifier gives to each class.

    accuracy         share of right answers
    mean_per_class   share of right answers in each class, averaged over the classes
    map_11_point     mean average precision of PASCAL VOC 2007, for images with several classes
    roc_auc          area under the ROC curve, for two classes

Test images that belong to no training class have the label NO_CLASS and count as wrong. For `mean_per_class` they form
one more class.
"""

from collections.abc import Callable

import evaluate
import numpy as np
from sklearn.metrics import recall_score, roc_auc_score
from torch import Tensor

from modeling_esvit.errors import EsViTError
from training.evaluation.scores import METRIC


MULTI_LABEL = "map_11_point"
MAP_11 = METRIC.with_name("mean_average_precision_11")


class MetricError(EsViTError, ValueError):
    """Raised when a metric is not defined for the classes of the images."""


def compute_accuracy(scores: Tensor, labels: Tensor) -> float:
    ranking = scores.argmax(dim=1, keepdim=True).numpy()
    metric = evaluate.load(str(METRIC), keep_in_memory=True)
    return metric.compute(predictions=ranking, references=labels.numpy(), top_k=[1])["top1"]


def compute_mean_per_class(scores: Tensor, labels: Tensor) -> float:
    present = np.unique(labels.numpy())
    return float(recall_score(labels.numpy(), scores.argmax(dim=1).numpy(), labels=present, average="macro"))


def compute_map_11_point(scores: Tensor, targets: Tensor) -> float:
    """Computes the 11-point mAP of scores `[N, K]` and targets `[N, K]`.

    Raises:
        MetricError: no image belongs to any class.
    """
    if not targets.any():
        raise MetricError("none of the images belongs to any class, so 11-point mAP is not defined.")
    metric = evaluate.load(str(MAP_11), keep_in_memory=True)
    result = metric.compute(predictions=scores.numpy(), references=targets.long().numpy())
    return result["mean_average_precision_11"]


def compute_roc_auc(scores: Tensor, labels: Tensor) -> float:
    """Computes the area under the ROC curve of scores `[N, 2]` and labels `[N]`.

    Raises:
        MetricError: there are not exactly two classes, each with an image.
    """
    if scores.shape[1] != 2 or sorted(labels.unique().tolist()) != [0, 1]:
        raise MetricError(
            f"roc_auc needs two classes, each with an image. There are {scores.shape[1]} classes, and the images "
            f"belong to {sorted(labels.unique().tolist())}."
        )
    return float(roc_auc_score(labels.numpy(), (scores[:, 1] - scores[:, 0]).numpy()))


METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "accuracy": compute_accuracy,
    "mean_per_class": compute_mean_per_class,
    MULTI_LABEL: compute_map_11_point,
    "roc_auc": compute_roc_auc,
}


def score(metric: str, scores: Tensor, targets: Tensor) -> float:
    """Computes a metric of scores `[N, K]` and labels `[N]`, or targets `[N, K]` for MULTI_LABEL."""
    return METRICS[metric](scores, targets)
