# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Hides the bars that transformers draws for files of weights, most of which are a single one, "0/1"."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.utils import enable_progress_bars
from transformers.utils import logging


@contextmanager
def hide_weight_bars() -> Iterator[None]:
    """Hides the bars of weights that are read from the disk or written; those of downloads stay."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    if shown:
        enable_progress_bars()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
