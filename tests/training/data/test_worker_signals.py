# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that signals do not end a worker at once."""

import os
import signal

import pytest

from training.data.worker_signals import GRACE, outlive_signals


@pytest.fixture
def handlers():
    """Puts the handlers of this process back."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_only_sigterm_ends_it_and_later(handlers, monkeypatch):
    alarms = []
    monkeypatch.setattr(signal, "alarm", alarms.append)
    outlive_signals(0)
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    assert alarms == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert alarms == [GRACE]
