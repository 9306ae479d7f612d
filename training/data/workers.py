# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Chooses how many workers decode images for a process."""

import os


MOST = 16  # workers that are chosen without being asked; each decodes about 300 images/s


def count_cores() -> int:
    """Returns the cores of this process's share: those that it may use, divided among the processes of the machine."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def count_workers(asked: int | None) -> int:
    """Returns the number that was asked for; for None, one for each core of this process's share, at most MOST."""
    return min(count_cores(), MOST) if asked is None else asked
