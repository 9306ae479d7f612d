# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a run on a folder of images needs none of the libraries that only other data and evaluations need."""

from tests.helpers.commands import run_program
from tests.helpers.tiny_runs import read_losses, tiny


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(["datasets", "evaluate", "requests", "urllib3"]))  # importing one is an ImportError
from training.pretrain import main
main()
"""


def test_a_step_without_datasets_evaluate_requests_and_urllib3(images, tmp_path):
    arguments = tiny(images, tmp_path / "run", "--max_steps 1")
    run_program(["python", "-c", WITHOUT, *arguments])
    assert len(read_losses(tmp_path / "run")) == 1
