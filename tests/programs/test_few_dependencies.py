# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a run on a folder of images needs none of the libraries that only other data and evaluations need."""

import pytest

from tests.helpers.commands import run_program
from tests.helpers.tiny_runs import read_losses, tiny


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(["datasets", "evaluate", "requests", "urllib3"]))  # importing one is an ImportError
from training.pretrain import main
main()
"""


@pytest.mark.slow
def test_a_step_without_datasets_evaluate_requests_and_urllib3(images, tmp_path):
    arguments = tiny(images, tmp_path / "run", "--max_steps 1")
    run_program(["python", "-c", WITHOUT, *arguments])
    assert len(read_losses(tmp_path / "run")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("place, end", [("", "ModuleNotFoundError: "), ("training/knn.py", "error: ")])
def test_what_a_program_needs_is_told_in_its_last_line(place, end):
    """Importing it, as in a notebook, raises; a program says nothing else."""
    lines = ["import sys", "sys.modules['accelerate'] = None", f"sys.argv[0] = {place!r}", "import training.knn"]
    shown = run_program(["python", "-c", "\n".join(lines)], code=1).stderr.splitlines()
    assert shown[-1] == f"{end}this needs the package accelerate: pip install -e '.[training]'"
    assert len(shown) == 1 or not place
