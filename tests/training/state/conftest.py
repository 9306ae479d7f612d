# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the finished run that a stopped one is compared with."""

from pathlib import Path

import pytest

from tests.helpers.tiny_runs import tiny, train


@pytest.fixture(scope="session")
def finished(labelled_images, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("finished")
    train(tiny(labelled_images, output))
    return output
