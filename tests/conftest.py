# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of several files."""

import pytest
from accelerate.state import AcceleratorState


@pytest.fixture
def fresh_accelerate():
    """Accelerate keeps the first precision of a process for all later runs in it."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
