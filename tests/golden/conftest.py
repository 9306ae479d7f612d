# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Loads the images of the golden outputs once."""

import pytest
import torch

from tests.helpers.golden import inputs


@pytest.fixture(scope="package")
def images() -> dict[str, torch.Tensor]:
    return inputs()
