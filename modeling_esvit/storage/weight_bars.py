# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Hides what transformers shows while it reads weights: bars, mostly "0/1", and its report of missing ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from logging import Filter, LogRecord

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


class NoLoadReport(Filter):
    """Lets all messages through but the report of weights."""

    def filter(self, record: LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()


@contextmanager
def hide_load_report() -> Iterator[None]:
    """Hides the report of weights that are missing or of another shape; the caller reads them in `loading_info`."""
    logger = logging.get_logger("transformers.modeling_utils")
    chosen = NoLoadReport()
    logger.addFilter(chosen)
    try:
        yield
    finally:
        logger.removeFilter(chosen)
