# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes the 11-point mean average precision of PASCAL VOC 2007, as a local module of `evaluate`.

metric = evaluate.load("training/evaluation/metrics/mean_average_precision_11")
metric.compute(predictions=scores, references=present)
"""

# `evaluate` parses these lines to find the imports of a metric, and understands only one module in a line.
import datasets
import evaluate
import numpy as np
from sklearn.metrics import precision_recall_curve


DESCRIPTION = "Average precision at the recalls 0, 0.1, ... 1, averaged over the classes (Everingham et al., 2010)."
INPUTS = """
Args:
    predictions: the scores of each example for each class, on any scale.
    references: 1 for each class that an example belongs to, and 0 for the others. Classes without any example are left
        out.
Returns:
    {"mean_average_precision_11": in 0..1}.
"""
ROUNDING = 1e-9  # so that a recall of 3 / 10 reaches the point 0.3


class NoPositiveExampleError(ValueError):
    """Raised when no example belongs to any class, so that there is no precision to average."""


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
            raise NoPositiveExampleError("no example belongs to any class, so there is no precision to average.")
        return {"mean_average_precision_11": float(np.mean(found))}

    @staticmethod
    def _average_precision(scores, present) -> float:
        """Averages over 11 points the highest precision of the thresholds whose recall reaches the point."""
        precision, recall, _ = precision_recall_curve(present, scores)
        precision, recall = precision[:-1], recall[:-1]  # the last point, precision 1 at recall 0, has no threshold
        return float(np.mean([precision[recall >= point / 10 - ROUNDING].max() for point in range(11)]))
