# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Top-k accuracy from ranked class predictions, as a local module of `evaluate`.

metric = evaluate.load("training/evaluation/metrics/top_k_accuracy")
metric.compute(predictions=ranking, references=labels, top_k=[1, 5])
"""

# `evaluate` reads these lines to learn what a metric script imports, and understands one module a line only.
import datasets
import evaluate


DESCRIPTION = "The share of examples whose label is among the first k classes of their ranking."
INPUTS = """
Args:
    predictions: for each example the class numbers from the most to the least likely, at least max(top_k) of them, all
        examples the same number; -1 fills places that no class was predicted for and never counts as a hit.
    references: the label of each example; a negative one (a class the model cannot name) is never hit.
    top_k: the k to report.
Returns:
    {"top<k>": share in 0..1} for each k.
"""


class RankingTooShortError(ValueError):
    """The rankings hold fewer classes than the largest k asked for."""


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
            raise RankingTooShortError(f"top-{max(top_k)} needs {max(top_k)} classes a ranking, but one has {shortest}")
        return {f"top{k}": self._share(predictions, references, k) for k in top_k}

    @staticmethod
    def _share(predictions, references, k: int) -> float:
        hits = sum(label >= 0 and label in ranking[:k] for ranking, label in zip(predictions, references, strict=True))
        return hits / len(references)
