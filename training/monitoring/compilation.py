# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures how long torch compiles, so that a run can say what a first step of minutes is spent on."""

import time
from collections.abc import Callable

from torch._dynamo.callback import callback_handler


class CompilationClock:
    """Adds up the seconds that torch spends compiling in this process, until it is closed.

    Attributes:
        seconds: All of them.
        count: How often a compilation began; one may compile several functions, a network's backward pass say.
    """

    def __init__(self, on_start: Callable[[], None] = lambda: None):
        """Calls `on_start` whenever a compilation begins."""
        self.on_start = on_start
        self.seconds, self.count = 0.0, 0
        self.started = self.taken = 0.0
        self.callbacks = ((callback_handler.start_callbacks, self.start), (callback_handler.end_callbacks, self.stop))
        for callbacks, callback in self.callbacks:
            callbacks.append(callback)

    def start(self, _: object) -> None:
        self.started = time.perf_counter()
        self.count += 1
        self.on_start()

    def stop(self, _: object) -> None:
        self.seconds += time.perf_counter() - self.started

    def take(self) -> float:
        """Returns the seconds since it was last called."""
        since, self.taken = self.seconds - self.taken, self.seconds
        return since

    def close(self) -> None:
        """Stops counting; a second call changes nothing."""
        for callbacks, callback in self.callbacks:
            if callback in callbacks:
                callbacks.remove(callback)
