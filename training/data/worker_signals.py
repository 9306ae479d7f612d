# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Keeps the workers of a loader alive while the signals of a scheduler end the run."""

import signal
from types import FrameType


GRACE = 5  # seconds


def outlive_signals(worker: int) -> None:
    """Makes a worker of a loader survive signals: SIGTERM ends it only after `GRACE` seconds, others not at all.

    Schedulers signal every process of a job, as a terminal does on Ctrl-C, and the step that is under way still needs
    its batches.
    """

    def leave_later(number: int, frame: FrameType | None) -> None:
        signal.alarm(GRACE)

    signal.signal(signal.SIGTERM, leave_later)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
