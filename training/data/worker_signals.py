# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Keeps the workers of a loader alive while the signals of a scheduler end the run."""

import signal


def outlive_signals(worker: int) -> None:
    """Makes a worker of a loader survive the signals that stop a run.

    Schedulers signal every process of a job, as a terminal does on Ctrl-C, and the step that is under way, however long
    it takes, still needs its batches. The main process kills its workers when it ends; one whose main process was
    killed notices that by itself.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
