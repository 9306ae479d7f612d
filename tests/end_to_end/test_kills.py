# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs killed at random instants leave whole checkpoints and continue exactly; many more kills: `kill_runs.py`."""

import subprocess
import sys
from pathlib import Path

import pytest


SCRIPT = Path(__file__).resolve().parents[1] / "kill_runs.py"


@pytest.mark.parametrize(
    "kills, source, processes, seed",
    [
        (5, "parquet", 1, 3),
        pytest.param(5, "folder", 1, 4, marks=pytest.mark.slow),
        pytest.param(5, "tar", 1, 5, marks=pytest.mark.slow),
        pytest.param(5, "tar", 2, 6, marks=pytest.mark.slow),
    ],
)
def test_killed_runs_continue_exactly(kills, source, processes, seed):
    options = {"kills": kills, "source": source, "processes": processes, "seed": seed}
    command = [sys.executable, str(SCRIPT), *(word for name in options for word in (f"--{name}", str(options[name])))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert f"{source}: {kills} kills in " in done.stdout and "all continued exactly" in done.stdout
