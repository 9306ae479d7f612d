# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks top-k accuracy by hand."""

import evaluate
import pytest

from training.evaluation.scores import METRIC


def test_hits_among_the_first_k():
    metric = evaluate.load(str(METRIC), keep_in_memory=True)
    rankings, labels = [[2, 0, 1], [1, 2, 0], [-1, -1, -1], [0, 1, 2]], [2, 0, -1, 1]
    assert metric.compute(predictions=rankings, references=labels, top_k=[1, 2, 3]) == {
        "top1": 0.25,
        "top2": 0.5,
        "top3": 0.75,  # a label of no class is never hit
    }
    with pytest.raises(ValueError, match="top-5 needs 5 classes in each ranking, but one has 3"):
        metric.compute(predictions=rankings, references=labels)
