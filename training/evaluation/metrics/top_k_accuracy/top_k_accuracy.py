# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes top-k accuracy from ranked classes, as a local module of `evaluate`.

metric = evaluate.load("training/evaluation/metrics/top_k_accuracy")
metric.compute(predictions=ranking, references=labels, top_k=[1, 5])
"""

# `evaluate` parses these lines to find the imports of a metric, and understands only one module in a line.
import datasets
import evaluate


DESCRIPTION = "The share of examples whose label is among the first k classes of their ranking."
INPUTS = """
Args:
    predictions: the class numbers of each example from the most to the least likely, equally many for each example and
        at least max(top_k). -1 fills places without a prediction and never counts as a hit.
    references: the label of each example. A negative label, a class that the model cannot name, is never hit.
    top_k: the values of k to report.
Returns:
    {"top<k>": share in 0..1} for each k.
"""


class RankingTooShortError(ValueError):
    """Raised when the rankings hold fewer classes than the largest k."""


class TopKAccuracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("int64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions, references, top_k=(1, 5)) -> dict[str, float]:
        shortest = min(map(len, predictions))
        if shortest < max(top_k):
            raise RankingTooShortError(
                f"top-{max(top_k)} needs {max(top_k)} classes in each ranking, but one has {shortest}."
            )
        return {f"top{k}": self._share(predictions, references, k) for k in top_k}

    @staticmethod
    def _share(predictions, references, k: int) -> float:
        hits = sum(label >= 0 and label in ranking[:k] for ranking, label in zip(predictions, references, strict=True))
        return hits / len(references)
