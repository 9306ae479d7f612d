# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Tries thousands of damaged and hostile inputs, at every place that reads what a stranger may have written.

    make attack                                                # ten minutes
    python tests/attack/run.py --seconds 60 --surface parquet  # surfaces whose name has this word
    python tests/attack/run.py --replay "parquet:17"           # one input again, with its traceback

Right is a result that is right in spite of the input, or an error of this project that says in words what is wrong. A
traceback, a hang, and a result that is silently wrong are faults, as is much memory for a small input: each is named
with what tries it again. The inputs are drawn from the seed and their number, so they are the same in every call.

Each surface is tried in a process of its own with a limit of memory; one that dies or hangs is a fault, and the next
input is tried by another process.
"""

import json
import logging
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from tqdm import tqdm

from modeling_esvit.programs.parser import ProgramParser


os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a name in a configuration asks no server
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402  (after the environment)

from tests.attack import images, model_files, original_checkpoints, runs, servers, shards  # noqa: E402
from tests.attack.outcomes import FAULTS, HANG, KINDS, TRACEBACK, WRONG, Surface, judge  # noqa: E402


SURFACES: list[Surface] = [
    images.SURFACE,
    original_checkpoints.SURFACE,
    *model_files.SURFACES,
    *shards.SURFACES,
    *runs.SURFACES,
    *servers.SURFACES,
]
MEMORY = 4 * 2**30  # bytes that a process may take beside what it has when it begins
MOST_TAKEN = 2**30  # of these, by an input that is a few kilobytes
LONGEST = 60  # seconds for one input
FIRST = 300  # seconds to prepare a surface
SHOWN = 20  # faults


class Fault(NamedTuple):
    """Describes an input that did not end as it should."""

    surface: str
    number: int
    kind: str
    what: str


class Worker:
    """Tries the inputs of a surface from a number on, in a process of its own.

    The process writes the number at hand, and the time when it began, into shared memory; outcomes go to a file.
    """

    def __init__(self, surface: Surface, folder: Path, first: int, seed: int, end: float, count: int | None):
        self.surface, self.log, self.first = surface, folder / f"{first}.jsonl", first
        self.shared = mmap.mmap(-1, 16)
        self.mark(first - 1)
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                os.setsid()
                self.work(folder / f"work-{first}", seed, end, count)
                code = 0
            finally:
                os._exit(code)

    def mark(self, number: int) -> None:
        self.shared[:] = struct.pack("qd", number, time.monotonic())

    def look(self) -> tuple[int, float]:
        """Returns the number of the input at hand, and the seconds that it has taken."""
        number, began = struct.unpack("qd", self.shared[:])
        return number, time.monotonic() - began

    def work(self, folder: Path, seed: int, end: float, count: int | None) -> None:
        with open(self.log.with_suffix(".txt"), "w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        limit_memory()
        folder.mkdir()
        attack, began = self.surface.prepare(folder), find_peak()
        with self.log.open("w", buffering=1) as log:
            number = self.first
            while time.monotonic() < end and (count is None or number < count):
                self.mark(number)
                before = find_peak()
                outcome = judge(attack, Random(f"{seed} {self.surface.name} {number}"))
                if find_peak() > max(before, began + MOST_TAKEN):
                    outcome = (WRONG, f"it took {(find_peak() - began) / 2**30:.1f} GB")
                log.write(json.dumps(outcome) + "\n")
                number += 1

    def ended(self) -> int | None:
        """Returns the exit code of the process, negative for a signal; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def stop(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def outcomes(self) -> list[tuple[str, str]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(kind, what) for kind, what in map(json.loads, lines)]


def find_peak() -> int:
    """Returns the most bytes of memory that this process has had so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def limit_memory() -> None:
    """Limits the memory of this process: an input that asks for more ends in a MemoryError, not in the machine's."""
    has = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def try_surface(
    surface: Surface, folder: Path, seed: int, seconds: float, count: int | None, bar: tqdm
) -> tuple[Counter[str], list[Fault]]:
    """Tries inputs of a surface for some seconds, or so many; returns how many ended how, and the faults."""
    counted: Counter[str] = Counter()
    faults: list[Fault] = []
    first, end = 0, time.monotonic() + seconds
    while (time.monotonic() < end or not first) and (count is None or first < count):
        worker = Worker(surface, folder, first, seed, max(end, time.monotonic() + 1), count)
        code, hung = None, False
        while (code := worker.ended()) is None and not hung:
            number, taken = worker.look()
            hung = taken > (LONGEST if number >= first else FIRST)
            bar.set_postfix_str(f"{surface.name[:30]} {number + 1}")
            bar.n = min(bar.total, bar.n + 0.2)
            bar.refresh()
            time.sleep(0.2)
        hung = hung and code is None
        if hung:
            worker.stop()
        found = worker.outcomes()
        if hung or code:  # the input at hand has no outcome
            said = worker.log.with_suffix(".txt").read_text(errors="replace").strip()[-300:]
            found.append(
                (HANG, f"more than {LONGEST} s") if hung else (TRACEBACK, f"the process ended by {code}: {said}")
            )
        counted.update(kind for kind, _ in found)
        faults += [Fault(surface.name, first + index, *each) for index, each in enumerate(found) if each[0] in FAULTS]
        first += len(found)
        if code and worker.look()[0] < worker.first:
            break  # it cannot even be prepared
    return counted, faults


def show(results: dict[str, Counter[str]]) -> str:
    """Returns the table of outcomes in Markdown."""
    lines = [f"| surface | tried | {' | '.join(KINDS)} |", "| --- |" + " ---: |" * (len(KINDS) + 1)]
    total = sum(results.values(), Counter[str]())
    for name, counted in [*results.items(), ("all", total)]:
        lines.append(f"| {name} | {counted.total()} | {' | '.join(str(counted[kind]) for kind in KINDS)} |")
    return "\n".join(lines)


def replay(name: str, number: int, seed: int) -> None:
    """Tries one input in this process, and lets its error through."""
    surface = next(each for each in SURFACES if name in each.name)
    with tempfile.TemporaryDirectory() as folder:
        surface.prepare(Path(folder))(Random(f"{seed} {surface.name} {number}"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = ProgramParser(__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="seconds in all")
    parser.add_argument("--inputs", type=int, help="inputs for each surface, at most (default: as the time allows)")
    parser.add_argument("--surface", nargs="+", default=[""], help="words of the names of surfaces (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the inputs")
    parser.add_argument("--replay", metavar="SURFACE:NUMBER", help="try this input alone, and show its traceback")
    options = parser.parse_args(arguments)
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    if options.replay:
        name, _, number = options.replay.rpartition(":")
        replay(name, int(number), options.seed)
        return 0
    chosen = [surface for surface in SURFACES if any(word in surface.name for word in options.surface)]
    results: dict[str, Counter[str]] = {}
    faults: list[Fault] = []
    folder = Path(tempfile.mkdtemp(prefix="attack-"))
    form = "{l_bar}{bar}| {elapsed} {postfix}"
    with tqdm(total=options.seconds, bar_format=form) as bar:
        for number, surface in enumerate(chosen):
            seconds = options.seconds * surface.share / sum(each.share for each in chosen)
            (folder / str(number)).mkdir()
            counted, found = try_surface(surface, folder / str(number), options.seed, seconds, options.inputs, bar)
            results[surface.name] = counted
            faults += found
    shutil.rmtree(folder, ignore_errors=True)
    print(show(results))
    for fault in faults[:SHOWN]:
        print(f"{fault.kind}: {fault.what}\n  --seed {options.seed} --replay '{fault.surface}:{fault.number}'")
    if len(faults) > SHOWN:
        print(f"and {len(faults) - SHOWN} more")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
