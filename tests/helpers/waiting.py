# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Waits for events, so that no test hopes that a pause is long enough."""

import threading
import time
from collections.abc import Callable

from modeling_esvit.images.read_ahead import THREAD_NAME


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    """Waits until `condition()` is true, and fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"It was not so after {seconds} s."
        time.sleep(0.01)


def no_thread_reads_ahead() -> bool:
    return not any(thread.name == THREAD_NAME for thread in threading.enumerate())
