# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs programs in processes of their own, as a user types them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.paths import ROOT


SCRIPTS = Path(sys.executable).parent


def torchrun(processes: int) -> list[str]:
    """Returns the launcher of `processes` processes on this machine."""
    return ["torchrun", "--standalone", "--nproc_per_node", str(processes)]


def make_environment(**variables: str) -> dict[str, str]:
    """Returns this environment, with one thread a process and this Python's scripts found by their names."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{SCRIPTS}:{os.environ['PATH']}", **variables}


def run_program(
    command: Sequence[str | Path], folder: Path = ROOT, code: int = 0, timeout: float = 300, **variables: str
) -> str:
    """Runs a command in `folder`, checks the code it ends with, and returns what it printed on either output."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=make_environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == code, done.stdout
    return done.stdout
