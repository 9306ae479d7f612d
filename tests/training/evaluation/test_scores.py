# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how classes of two data sets are matched."""

import torch

from training.evaluation.scores import align_labels, find_tops, list_tops, score_top_k


def test_unnamed_classes_are_compared_by_number():
    train, test = torch.tensor([7, 10**12, 7]), torch.tensor([10**12, 8, 7, 10**13])
    train_ids, test_ids, count = align_labels(train, test, None, None)
    assert (train_ids.tolist(), test_ids.tolist(), count) == ([0, 1, 0], [1, -1, 0, -1], 2)


def test_the_best_five_of_few_classes_say_nothing():
    assert [list_tops(classes) for classes in (2, 5, 6)] == [(1,), (1,), (1, 5)]
    ranking, labels = torch.tensor([[0, 1, 2, 3, 4], [1, 0, 2, 3, 4]]), torch.tensor([0, 4])
    assert score_top_k(ranking, labels, 5) == {"top1": 0.5}
    assert score_top_k(ranking, labels, 6) == {"top1": 0.5, "top5": 1.0}
    assert find_tops(["k", "k20_top1", "k20_top5"]) == [1, 5] and find_tops(["top1"]) == [1]
