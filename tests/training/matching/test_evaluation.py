# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks averages of correspondences over images."""

import math

import pytest
import torch

from training.matching.evaluation import average_mirrored, replace_nan


def test_a_similarity_that_no_image_has_is_null():
    lost = [math.nan] * 4
    scores = torch.tensor([[0.5, 10.0, math.nan, 0.25], [1.0, 0.0, math.nan, 0.75], lost])
    found = average_mirrored(scores, (7, 7), (224, 224))
    assert (
        (found["accuracy"], found["distance"]) == (0.75, 5.0)
        and found["distinct"] == 0.5
        and found["chance_accuracy"] == pytest.approx(1 / 49)
    )
    assert replace_nan(found)["next_similarity"] is None and replace_nan(found)["accuracy"] == 0.75
