# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the batches that workers send fit into the memory through which processes share them, and find their way.

Linux has it in /dev/shm, and a container 64 MB of it unless told otherwise. A worker that finds no room there, or no
name for the socket through which it hands a batch over, does not fail: its batch is lost, and the run would wait for it
for ever.
"""

import multiprocessing.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from modeling_esvit.images.wording import show_number
from training.options.errors import OptionError
from training.views.draw import ViewOptions


PLACE = Path("/dev/shm")
AHEAD = 2  # batches that each worker makes ahead
MEGABYTE = 1e6
LONGEST_SOCKET = 107 if sys.platform == "linux" else 103  # bytes of the path of a socket
SOCKET = "/listener-12345678"  # as multiprocessing names one in its folder


@dataclass(frozen=True)
class SharedMemory:
    """Counts what the loaders of this machine's processes put into the shared memory at a time.

    Attributes:
        batch: Bytes of a batch.
        workers: Those of each process.
        held: Batches that a process holds while it takes a step.
        processes: Processes of the run on this machine.
    """

    batch: int
    workers: int
    held: int
    processes: int

    @property
    def needed(self) -> int:
        return self.batch * (AHEAD * self.workers + self.held) * self.processes if self.workers else 0

    def count_workers(self, free: int) -> int:
        """Returns how many workers a process can have in `free` bytes."""
        return max((free // (self.batch * self.processes) - self.held) // AHEAD, 0)

    def describe(self) -> str:
        return (
            f"{self.batch / MEGABYTE:.1f} MB a batch x ({AHEAD} for each of {self.workers} workers + {self.held} of a "
            f"step) x {show_number(self.processes, 'processes')} = {self.needed / MEGABYTE:.0f} MB"
        )


def count_shared_memory(
    views: ViewOptions, batch_size: int, workers: int, *, held: int, bytes_per_value: int
) -> SharedMemory:
    """Counts what batches of so many images take, with all crops of each."""
    values = sum(len(group) * 3 * group[0].size[0] * group[0].size[1] for group in views.groups)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return SharedMemory(values * batch_size * bytes_per_value, workers, held, processes)


def find_free_memory() -> int | None:
    """Returns the free bytes of the shared memory; None where it has no limit of its own."""
    return shutil.disk_usage(PLACE).free if PLACE.is_dir() else None


def describe_free_memory() -> list[str]:
    """Returns a phrase on the free shared memory, if it has a limit of its own."""
    free = find_free_memory()
    return [] if free is None else [f"{PLACE} has {free / MEGABYTE:.0f} MB free"]


def check_shared_memory(memory: SharedMemory) -> None:
    """Checks that there is room for the batches.

    Raises:
        OptionError: there is not; the message says how much is needed, and what to do.
    """
    free = find_free_memory()
    if free is None or memory.needed <= free:
        return
    raise OptionError(
        f"{PLACE}, through which workers send their batches, has {free / MEGABYTE:.0f} MB free, and they need up to "
        f"{memory.describe()}; the run would hang. Use --workers {memory.count_workers(free)}, or give the "
        f"container more: docker run --shm-size={memory.needed // 10**9 + 1}g, or --ipc=host."
    )


def check_sockets(workers: int) -> None:
    """Checks that the path of the folder for temporary files leaves room for the name of a socket.

    Raises:
        OptionError: it does not.
    """
    folder = multiprocessing.util.get_temp_dir() if workers else ""
    if len(os.fsencode(folder + SOCKET)) > LONGEST_SOCKET:
        raise OptionError(
            f"The folder for temporary files, {os.path.dirname(folder)}, has too long a path: workers hand over their "
            f"batches through sockets below it, whose paths may have {LONGEST_SOCKET} bytes; the run would hang. Set "
            "TMPDIR to a shorter one, such as /tmp, or use --workers 0."
        )
