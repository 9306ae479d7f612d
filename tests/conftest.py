# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the fixtures that tests of several folders use."""

from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from modeling_esvit.images.precision import CPU_INSTRUCTIONS
from tests.helpers.tiny_runs import write_images


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Forgets the precision of earlier runs: Accelerate keeps the first one of a process for all later runs in it."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def without_bfloat16(monkeypatch):
    """Makes `--dtype auto` float32 on every CPU, so that results do not depend on where the tests run."""
    found = {**torch.cpu.get_capabilities(), **dict.fromkeys(CPU_INSTRUCTIONS, False)}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """Returns a folder of 26 textured images without labels, which no test changes."""
    return write_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="session")
def labelled_images(tmp_path_factory) -> Path:
    """Returns a folder of 26 textured images in two classes, which no test changes."""
    return write_images(tmp_path_factory.mktemp("data") / "images", classes="ab")
