# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Holds what tests of publishing share: a finished run, and the folder that was written from it."""

from pathlib import Path

import pytest

from tests.helpers.tiny_runs import tiny, train, write_labelled_images
from training.publish import main


@pytest.fixture(scope="package")
def run(tmp_path_factory) -> Path:
    """Returns the folder of a finished run, evaluated after each of its two epochs."""
    folder = tmp_path_factory.mktemp("secret_place")
    train(tiny(folder / "train", folder / "run", write_labelled_images(folder)))
    return folder / "run"


@pytest.fixture(scope="package")
def published(run) -> Path:
    """Returns the folder that `publish.py` wrote from the run."""
    main([str(run), "--repo_id", "ada/tiny", "--dry_run"])
    return run.with_name("run-hub")
