# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the signals of a job do not end a worker."""

import os
import signal

import pytest

from training.data.worker_signals import outlive_signals


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture
def handlers():
    """Puts the handlers of this process back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_no_signal_ends_it_however_long_the_step_takes(handlers):
    """SIGTERM ended it five seconds later, in the middle of a step on a busy machine: the run then saved nothing."""
    outlive_signals(0)
    for number in SIGNALS:
        os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_IGN
    assert signal.alarm(0) == 0  # none was set
