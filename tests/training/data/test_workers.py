# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how many workers a process takes without being told."""

import math
import os

import pytest

from training.data import workers
from training.data.workers import MOST, count_cores, count_workers, find_quota


@pytest.fixture(autouse=True)
def without_groups(monkeypatch, tmp_path):
    """Gives the process no groups but those of a test."""
    monkeypatch.setattr(workers, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(workers, "GROUPS", tmp_path / "groups")


@pytest.mark.parametrize("usable, processes, expected", [(16, 1, 16), (16, 4, 4), (3, 2, 1), (2, 8, 1), (96, 2, 48)])
def test_the_share_of_a_process(monkeypatch, usable, processes, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(usable)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert count_cores() == expected
    assert count_workers(None) == min(expected, MOST)
    assert [count_workers(asked) for asked in (0, 3, 40)] == [0, 3, 40]


GROUPS = {
    # joblib/loky pull 355, batpred pull 4771: `docker run --cpus 4`, and half a core more
    "container": ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
    "a part of a core": ("0::/\n", {"cpu.max": "450000 100000"}, 4.5),
    # joblib/loky issue 634: the group of systemd's user session, and one outside of it that has less
    "outer": ("1:net_cls:/\n0::/user/job\n", {"user/job/cpu.max": "max 100000", "user/cpu.max": "200000 100000"}, 2),
    # autogluon pull 4571, ml-agents pull 4471: version 1, with the name of the group outside of the container
    "version 1": (
        "3:cpu,cpuacct:/docker/7f\n2:memory:/\n",
        {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
        2,
    ),
    "no limit": ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
    # joblib/loky issue 478
    "empty": ("0::/\n", {"cpu.max": "\n"}, math.inf),
    "nothing": ("0::/\n", {}, math.inf),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_the_quota_of_a_container(kind, tmp_path, monkeypatch):
    """A container sees all cores of its machine, also in the mask of the scheduler."""
    membership, files, expected = GROUPS[kind]
    (tmp_path / "membership").write_text(membership)
    for name, content in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(content)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    assert find_quota() == expected and count_cores() == min(64, math.ceil(min(expected, 64)))
