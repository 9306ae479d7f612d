# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the table of accuracies beside others, and what is said of their differences."""

import torch

from training.evaluation.comparison import conclude, find_chance, format_comparison


def test_chance_is_the_most_frequent_class_of_the_training_data():
    assert find_chance(torch.tensor([0, 1, 1, 2]), torch.tensor([1, 2, 2, -1])) == 0.25
    assert find_chance(torch.tensor([0, 1, 2, 3]), torch.arange(20) % 4) == 0.25


def test_a_row_for_each_model():
    scores = {"mine": {"k = 10": 0.5, "k = 20": 0.25}, "chance": {"k = 10": 0.125}}
    assert format_comparison(scores)[2:] == ["| mine | 50.00% | 25.00% |", "| chance | 12.50% |  |"]


def test_differences_that_the_test_images_cannot_tell_are_called_so():
    scores = {"mine": 0.6, "untrained": 0.3, "timm:x": 0.62}
    assert conclude("mine", scores, 500) == (
        "mine: 30.0 points above untrained; 2.0 points below timm:x (which 500 test images cannot tell apart)."
    )
    assert conclude("mine", scores, 50_000).endswith("2.0 points below timm:x.")
    assert conclude("mine", {"mine": 0.5}, 10) == ""
