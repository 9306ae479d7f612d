# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Chooses how many workers decode images for a process."""

import math
import os
from collections.abc import Iterator
from pathlib import Path


MOST = 16  # workers that are chosen without being asked; each decodes about 300 images/s
# Where Linux says in which groups a process is, and what each may use. The limits of a container are among them.
MEMBERSHIP, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def count_cores() -> int:
    """Returns the cores of this process's share: those that it may use, divided among the processes of the machine."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    usable = math.ceil(min(usable, find_quota()))
    return max(1, usable // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def count_workers(asked: int | None) -> int:
    """Returns the number that was asked for; for None, one for each core of this process's share, at most MOST."""
    return min(count_cores(), MOST) if asked is None else asked


def find_quota() -> float:
    """Returns how many cores' time this process may use, such as 2 after `docker run --cpus 2`; infinity without limit.

    A container sees all cores of its machine, whatever its share of their time is.
    """
    return min(map(read_quota, list_groups()), default=math.inf)


def list_groups() -> Iterator[Path]:
    """Yields the folders of the groups that this process is in, from inside to outside, as either version has them."""
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            root = GROUPS / controllers
            inner = root / name.lstrip("/")  # a container may see its own group as the root, under its name outside
            yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(root))


def read_quota(group: Path) -> float:
    """Returns how many cores' time a group may use; infinity without limit."""
    files = ["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
    for names in files:
        try:
            quota, period = " ".join((group / name).read_text(encoding="utf-8") for name in names).split()
            return int(quota) / int(period) if int(quota) > 0 else math.inf
        except (OSError, ValueError):  # no such file, "max", or a file that is empty
            continue
    return math.inf
