# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how many workers a process takes without being told."""

import os

import pytest

from training.data.workers import MOST, count_cores, count_workers


@pytest.mark.parametrize("usable, processes, expected", [(16, 1, 16), (16, 4, 4), (3, 2, 1), (2, 8, 1), (96, 2, 48)])
def test_the_share_of_a_process(monkeypatch, usable, processes, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(usable)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert count_cores() == expected
    assert count_workers(None) == min(expected, MOST)
    assert [count_workers(asked) for asked in (0, 3, 40)] == [0, 3, 40]
