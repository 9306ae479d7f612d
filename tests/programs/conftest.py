# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the model and the images that tests of the programs about attention share."""

from pathlib import Path

import pytest

from tests.helpers.tiny_runs import write_images, write_model


@pytest.fixture(scope="package")
def attention_model(tmp_path_factory) -> str:
    """Returns the folder of a Swin whose first stage has a block with shifted windows."""
    return str(write_model(tmp_path_factory.mktemp("model"), depths=[2, 1]))


@pytest.fixture(scope="package")
def few_images(tmp_path_factory) -> Path:
    """Returns a folder of five images, which no test changes."""
    return write_images(tmp_path_factory.mktemp("images") / "some", 5)
