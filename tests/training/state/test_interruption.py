# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that signals are held back while a run is entered, and stop it at the next step."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from training.state import interruption as interruption_module
from training.state.interruption import SIGNALS, InterruptedRunError, Interruption


NAMES = {signal.SIGINT: "Ctrl-C"}


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_after_the_step(number):
    before = {each: signal.getsignal(each) for each in SIGNALS}
    with Interruption() as interruption:
        interruption.stop(3)
        os.kill(os.getpid(), number)
        assert interruption.exchange() == number
        with pytest.raises(
            InterruptedRunError,
            match=f"{NAMES.get(number, number.name)} stopped the run after step 4, with a checkpoint",
        ):
            interruption.stop(4)
    assert {each: signal.getsignal(each) for each in SIGNALS} == before


def test_signals_stay_held_back_while_an_interrupted_run_ends():
    before = {each: signal.getsignal(each) for each in SIGNALS}
    with pytest.raises(InterruptedRunError), Interruption() as interruption:
        raise InterruptedRunError(signal.SIGTERM, 1)
    assert all(signal.getsignal(each) == interruption.note for each in SIGNALS)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_run_in_a_thread_leaves_signals_alone():
    """Python lets only the main thread handle them."""
    before = {each: signal.getsignal(each) for each in SIGNALS}

    def enter() -> dict:
        with Interruption() as interruption:
            assert interruption.exchange() == 0
            return {each: signal.getsignal(each) for each in SIGNALS}

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(enter).result() == before


def test_a_second_ctrl_c_ends_the_run_at_once(monkeypatch, capfd):
    """What a launcher passes on right after the terminal is no second one."""
    clock = [100.0]
    monkeypatch.setattr(interruption_module.time, "monotonic", lambda: clock[0])
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        assert interruption.exchange() == signal.SIGINT
        assert capfd.readouterr().err.count("Ctrl-C: finishes this step and saves it.") == 1
        os.kill(os.getpid(), signal.SIGTERM)
        clock[0] += 1.5
        os.kill(os.getpid(), signal.SIGINT)
    assert capfd.readouterr().err == ""
