# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures candidates, each in a process of its own.

They take turns, one iteration each, so that a machine that slows down slows all of them down; quoted are medians,
ratios of medians and each process's peak memory.

All candidates get the same environment. glibc by default maps and unmaps every tensor over 32 MB anew, which costs an
implementation up to half of its time in page faults; "glibc, tuned" tells it to keep its memory.
"""

import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

import torch

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.precision import has_amx, list_cpu_instructions
from training.evaluation.results import format_table


RESULTS = Path(__file__).parent / "results"
ALLOCATORS: dict[str, dict[str, str]] = {
    "glibc": {},
    "glibc, tuned": {"MALLOC_MMAP_THRESHOLD_": str(8 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30)},
}

Result = TypeVar("Result")
Iteration = Callable[[], object]
Setup = Callable[[], Iteration]  # builds a candidate; picklable


@dataclass
class Measurement:
    """Holds what was measured of one candidate.

    Attributes:
        seconds: Of each counted iteration, in order.
        peak_bytes: Largest resident memory of the process.
        start_bytes: The same before the first iteration.
    """

    name: str
    seconds: list[float]
    peak_bytes: int
    start_bytes: int

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class CandidateError(EsViTError, RuntimeError):
    """Raised when a candidate cannot be built, or its process ended; its own message is then on the screen."""


def _serve(setup: Setup, connection, threads: int) -> None:
    """Runs in the candidate's process: one timed iteration for each request, then its peak memory."""
    torch.set_num_threads(threads)
    try:
        iteration = setup()
    except EsViTError as error:
        connection.send(error)
        return
    connection.send(peak_memory())
    while connection.recv() == "run":
        started = time.perf_counter()
        iteration()
        connection.send(time.perf_counter() - started)
    connection.send(peak_memory())


def peak_memory() -> int:
    """Returns the largest resident set of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def take_turns(
    candidates: Mapping[str, Setup],
    *,
    repeats: int,
    warmup: int = 1,
    threads: int | None = None,
    allocator: str = "glibc, tuned",
) -> dict[str, Measurement]:
    """Times `repeats` iterations of each candidate, in turns, after `warmup` ones, with one of `ALLOCATORS`.

    Raises:
        CandidateError: a candidate failed.
    """
    _set_allocator(allocator)
    context = multiprocessing.get_context("spawn")
    running = {}
    for name, setup in candidates.items():
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(setup, theirs, threads or os.cpu_count()), daemon=True)
        process.start()
        theirs.close()
        running[name] = (process, ours, _receive(name, ours))
    seconds: dict[str, list[float]] = {name: [] for name in running}
    for repeat in range(warmup + repeats):
        for name, (_, connection, _) in running.items():
            connection.send("run")
            elapsed = _receive(name, connection)
            if repeat >= warmup:
                seconds[name].append(elapsed)
    results = {}
    for name, (process, connection, start) in running.items():
        connection.send("stop")
        results[name] = Measurement(name, seconds[name], _receive(name, connection), start)
        process.join()
    return results


def in_a_process(function: Callable[[], Result], allocator: str = "glibc, tuned") -> Result:
    """Calls `function` in a process of its own, and returns its (picklable) result."""
    _set_allocator(allocator)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return executor.submit(function).result()


def _set_allocator(name: str) -> None:
    """Sets the variables that each new process reads when it starts."""
    for variable in ALLOCATORS["glibc, tuned"]:
        os.environ.pop(variable, None)
    os.environ.update(ALLOCATORS[name])


def _receive(name: str, connection):
    try:
        received = connection.recv()
    except EOFError as error:
        raise CandidateError(f"The process of {name!r} ended before its measurement did.") from error
    if isinstance(received, EsViTError):
        raise CandidateError(f"{name!r} cannot be measured: {received}") from received
    return received


def environment() -> dict[str, object]:
    """Returns what a figure depends on, besides the code: machine, versions, allocator, date, commit."""
    import transformers

    return {
        "date": date.today().isoformat(),
        "commit": _commit(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "bfloat16": ", ".join(list_cpu_instructions()) or "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


def _cpuinfo(field: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), platform.processor())


def _processor() -> str:
    return _cpuinfo("model name")


def matrix_rate(size: int = 2048, repeats: int = 7) -> float:
    """Measures FLOP/s of a square float32 `torch.mm` in this process: what the machine gives at best."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def rows(measurements: Iterable[Measurement]) -> list[dict]:
    return [{**asdict(m), "median_seconds": m.median} for m in measurements]


def write_json(benchmark: str, settings: dict, measured: dict, folder: Path = RESULTS) -> Path:
    """Writes settings and measurements, with the environment, as `FOLDER/BENCHMARK.json`.

    Figures of other settings than those that lie there do not take their place: they go to `FOLDER/other`.
    """
    content = {"benchmark": benchmark, "environment": environment(), **settings, **measured}
    name = f"{benchmark}.json"
    path = folder / name if _has_settings(folder / name, settings) else folder / "other" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def _has_settings(path: Path, settings: dict) -> bool:
    """Whether no file lies at `path`, or one whose settings are these, as far as it names them."""
    saved = json.loads(path.read_text()) if path.exists() else {}
    return all(saved.get(name, value) == value for name, value in settings.items())


def name_by_processor(benchmark: str) -> str:
    """Returns the name under which figures are saved: those of a CPU with AMX stand beside those of others."""
    return f"{benchmark}_amx" if has_amx() else benchmark


def table(header: list[str], lines: Iterable[Iterable[object]]) -> str:
    """Returns a Markdown table."""
    return "\n".join(format_table(header, [[str(cell) for cell in line] for line in lines]))
