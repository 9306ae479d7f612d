# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs programs in processes of their own, as a user types them."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT


SCRIPTS = Path(sys.executable).parent


def torchrun(processes: int = 2) -> list[str]:
    """Returns the launcher of `processes` processes on this machine."""
    return ["torchrun", "--standalone", "--nproc_per_node", str(processes)]


def make_environment(base: Mapping[str, str] = os.environ, **variables: str) -> dict[str, str]:
    """Returns `base` with one thread a process, and with this Python and its scripts found by their bare names."""
    return {**base, "OMP_NUM_THREADS": "1", "PATH": f"{SCRIPTS}:{os.environ['PATH']}", **variables}


def run_program(
    command: Sequence[object],
    folder: Path = ROOT,
    code: int = 0,
    timeout: float = 300,
    base: Mapping[str, str] = os.environ,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Runs a command such as `["python", "training/knn.py", model]` in `folder`, and checks the code it ends with."""
    environment = make_environment(base, **variables)
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def type_arguments(monkeypatch: pytest.MonkeyPatch, program: str, *arguments: object) -> None:
    """Makes this process's command line that of a program, such as `training/throughput.py`."""
    monkeypatch.setattr(sys, "argv", [str(ROOT / program), *map(str, arguments)])
