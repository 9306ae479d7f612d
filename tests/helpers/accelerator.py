# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Lets a CPU take the path that an accelerator takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch


@contextmanager
def accelerator_path() -> Iterator[None]:
    """Switches off, within the block, what is for CPUs alone: gathers, parts, tiles, recomputed norms.

    They are off in a compiled graph, too, so that torch only has to say that it is compiling.
    """
    with patch.object(torch.compiler, "is_compiling", lambda: True):
        yield


@contextmanager
def attention_for(name: str) -> Iterator[str]:
    """Gives the implementation of attention of a test's parameter; "accelerator" is sdpa on that path."""
    if name == "accelerator":
        with accelerator_path():
            yield "sdpa"
    else:
        yield name
