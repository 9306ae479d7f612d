# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how classes of two data sets are matched."""

import torch

from training.evaluation.scores import align_labels


def test_unnamed_classes_are_compared_by_number():
    train, test = torch.tensor([7, 10**12, 7]), torch.tensor([10**12, 8, 7, 10**13])
    train_ids, test_ids, count = align_labels(train, test, None, None)
    assert (train_ids.tolist(), test_ids.tolist(), count) == ([0, 1, 0], [1, -1, 0, -1], 2)
