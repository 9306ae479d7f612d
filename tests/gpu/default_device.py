# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes tests create their tensors on the device of `ESVIT_TEST_DEVICE`: `pytest -p tests.gpu.default_device`."""

import os

import pytest
import torch


@pytest.fixture(autouse=True)
def default_device():
    """Sets torch's default device for one test."""
    with torch.device(os.environ["ESVIT_TEST_DEVICE"]):
        yield
