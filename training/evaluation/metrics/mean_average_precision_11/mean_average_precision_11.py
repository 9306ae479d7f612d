# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The mean average precision of PASCAL VOC 2007, of 11 points, as a local module of `evaluate`.

evaluate.load("training/evaluation/metrics/mean_average_precision_11").compute(predictions=scores, references=present)
"""

# `evaluate` reads these lines to learn what a metric script imports, and understands one module a line only.
import datasets
import evaluate
import numpy as np
from sklearn.metrics import precision_recall_curve


DESCRIPTION = "Average precision at the recalls 0, 0.1, ... 1, averaged over the classes (Everingham et al., 2010)."
INPUTS = """
Args:
    predictions: for each example a score of each class, of any scale.
    references: for each example and class, 1 if it is of that class, and else 0. Classes of no example are left out.
Returns:
    {"mean_average_precision_11": in 0..1}.
"""
ROUNDING = 1e-9  # a recall of 3 / 10 reaches the point 0.3


class NoPositiveExampleError(ValueError):
    """No example is of any class: there is no precision to average."""


class MeanAveragePrecision11(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Sequence(datasets.Value("int64")),
                }
            ),
        )

    def _compute(self, predictions, references) -> dict[str, float]:
        scores, present = np.array(predictions), np.array(references)
        found = [self._average_precision(scores[:, k], present[:, k]) for k in present.any(axis=0).nonzero()[0]]
        if not found:
            raise NoPositiveExampleError("none of the examples is of any class: no precision can be averaged.")
        return {"mean_average_precision_11": float(np.mean(found))}

    @staticmethod
    def _average_precision(scores, present) -> float:
        """At each point the highest precision of the thresholds whose recall reaches it; equal scores come together."""
        precision, recall, _ = precision_recall_curve(present, scores)
        precision, recall = precision[:-1], recall[:-1]  # the last point, precision 1 at recall 0, is of no threshold
        return float(np.mean([precision[recall >= point / 10 - ROUNDING].max() for point in range(11)]))
