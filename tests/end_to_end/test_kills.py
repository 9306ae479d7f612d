# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Kills runs at random instants: checkpoints are whole, and runs continue exactly. `kill_runs.py` kills more."""

import pytest

from tests.helpers.commands import run_program


@pytest.mark.parametrize(
    "kills, source, processes, seed",
    [
        pytest.param(5, "parquet", 1, 3, marks=pytest.mark.slow),
        pytest.param(5, "folder", 1, 4, marks=pytest.mark.slow),
        pytest.param(5, "tar", 1, 5, marks=pytest.mark.slow),
        pytest.param(5, "tar", 2, 6, marks=pytest.mark.slow),
    ],
)
def test_killed_runs_continue_exactly(kills, source, processes, seed):
    options = {"kills": kills, "source": source, "processes": processes, "seed": seed}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    done = run_program(["python", "tests/kill_runs.py", *words], timeout=500)
    assert f"{source}: {kills} kills in " in done.stdout and "all continued exactly" in done.stdout
