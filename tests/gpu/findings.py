# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Holds what all stages of `check_gpu.py` share: where and how large they run, and what they find."""

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Setting:
    """Says where a stage runs, whether in the size of a test, and which folder it may write into."""

    device: torch.device
    tiny: bool
    folder: Path

    def choose(self, full: Any, tiny: Any) -> Any:
        return tiny if self.tiny else full

    def wait(self) -> None:
        """Waits until the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def time(self, function: Callable[[], object], repeats: int) -> float:
        """Returns the median seconds of a call that the device has finished; the first call is not counted."""
        seconds = []
        for _ in range(repeats + 1):
            self.wait()
            started = time.perf_counter()
            function()
            self.wait()
            seconds.append(time.perf_counter() - started)
        return statistics.median(seconds[1:])

    def peak_memory(self) -> float:
        """Returns the largest memory of this process on the device, in GB; 0 where torch does not count it."""
        return torch.cuda.max_memory_allocated(self.device) / 1e9 if self.device.type == "cuda" else 0.0


@dataclass
class Findings:
    """Collects values and checks, and writes them after each, so that a stage that is stopped leaves what it had."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def hold(self) -> bool:
        return all(check["holds"] for check in self.checks)

    def note(self, **values: Any) -> None:
        """Adds values that are only to be read."""
        self.values |= values
        self._write()

    def check(self, name: str, value: float, limit: float, at_least: bool = False) -> None:
        """Adds a value that must not be above `limit`, or not below it; a NaN never holds."""
        holds = value >= limit if at_least else value <= limit
        shown = value if math.isfinite(value) else repr(value)
        self.checks.append({"name": name, "value": shown, "limit": limit, "holds": bool(holds)})
        self._write()

    def compare(self, name: str, found: torch.Tensor, expected: torch.Tensor, limit: float) -> None:
        """Checks the largest difference of two tensors of one shape."""
        if found.shape != expected.shape:
            raise ValueError(f"{name} has the shape {tuple(found.shape)}, and should have {tuple(expected.shape)}.")
        self.check(name, (found.detach().double().cpu() - expected.detach().double().cpu()).abs().max().item(), limit)

    def _write(self) -> None:
        self.path.write_text(json.dumps({"values": self.values, "checks": self.checks}, indent=1) + "\n")
