# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Keeps products of float32 matrices in float32, whatever a program allows elsewhere, and its choice to itself."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def restore_precision() -> Iterator[None]:
    """Gives products of float32 matrices, after the block, the precision that they had before it."""
    before = torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Lets no product of float32 matrices, within the block, be computed in TF32 (a GPU) or bfloat16 (a CPU)."""
    with restore_precision():
        torch.set_float32_matmul_precision("highest")
        yield
