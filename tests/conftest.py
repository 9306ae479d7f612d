# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of several files."""

import pytest
from accelerate.state import AcceleratorState


@pytest.fixture
def fresh_accelerate():
    """Forgets the precision of earlier runs: Accelerate keeps the first one of a process for all later runs in it."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
