# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The metrics of the transfer data sets, in 0..1, from the scores that a classifier gives to each class.

    accuracy         share of right answers
    mean_per_class   mean over the classes of the share of their images that is right
    map_11_point     mean average precision of PASCAL VOC 2007, of images of several classes
    roc_auc          area under the ROC curve, of two classes

Test images of no training class have the label NO_CLASS and count as wrong; together they are one class more.
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
    """A metric is not defined for these classes."""


def accuracy(scores: Tensor, labels: Tensor) -> float:
    ranking = scores.argmax(dim=1, keepdim=True).numpy()
    metric = evaluate.load(str(METRIC), keep_in_memory=True)
    return metric.compute(predictions=ranking, references=labels.numpy(), top_k=[1])["top1"]


def mean_per_class(scores: Tensor, labels: Tensor) -> float:
    present = np.unique(labels.numpy())
    return float(recall_score(labels.numpy(), scores.argmax(dim=1).numpy(), labels=present, average="macro"))


def map_11_point(scores: Tensor, targets: Tensor) -> float:
    """Raises:
    MetricError: no image is of any class.
    """
    if not targets.any():
        raise MetricError("none of the images is of any class: 11-point mAP is not defined.")
    metric = evaluate.load(str(MAP_11), keep_in_memory=True)
    result = metric.compute(predictions=scores.numpy(), references=targets.long().numpy())
    return result["mean_average_precision_11"]


def roc_auc(scores: Tensor, labels: Tensor) -> float:
    """Raises:
    MetricError: there are not two classes, each with an image.
    """
    if scores.shape[1] != 2 or sorted(labels.unique().tolist()) != [0, 1]:
        raise MetricError(
            f"roc_auc needs images of two classes; these are of {sorted(labels.unique().tolist())} of "
            f"{scores.shape[1]} classes."
        )
    return float(roc_auc_score(labels.numpy(), (scores[:, 1] - scores[:, 0]).numpy()))


METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "accuracy": accuracy,
    "mean_per_class": mean_per_class,
    MULTI_LABEL: map_11_point,
    "roc_auc": roc_auc,
}


def score(metric: str, scores: Tensor, targets: Tensor) -> float:
    """Of scores [N, K] and labels [N], or targets [N, K] for MULTI_LABEL."""
    return METRICS[metric](scores, targets)
