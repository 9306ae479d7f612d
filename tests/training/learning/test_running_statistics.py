# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a skipped step leaves the running statistics of BatchNorms as they were."""

import torch
from torch import nn

from training.learning.running_statistics import RunningStatistics


def test_statistics_come_back_only_after_a_skipped_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    statistics = RunningStatistics(model, nn.Linear(2, 2))
    assert len(statistics.buffers) == 3
    for skipped in (1.0, 0.0):
        statistics.keep()
        before = [buffer.clone() for buffer in model.buffers()]
        model(torch.randn(4, 3))
        statistics.restore(torch.tensor(skipped))
        same = [torch.equal(buffer, kept) for buffer, kept in zip(model.buffers(), before, strict=True)]
        assert same == [bool(skipped)] * 3
