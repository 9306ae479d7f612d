# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Stops a run on Ctrl-C, and on the signals by which schedulers announce that a machine is taken away.

These are SIGINT, as of Ctrl-C, SIGTERM, SIGUSR1 and SIGUSR2.

All processes stop after the same step, so that a checkpoint can be written, and the program ends with `EXIT_CODE`.
Before and after training the signals end the program at once, since there is nothing to save. So does a second Ctrl-C.

The program that started the processes ends with a code of its own: SLURM's `srun` with the highest of theirs, thus with
`EXIT_CODE`; `torchrun` and `accelerate launch` with 1. When these two are signalled themselves, they pass on SIGTERM,
and other signals if `PET_SIGNALS_TO_HANDLE` names them (see `examples/launch`); `accelerate launch` of one process dies
and leaves that process running.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, cast

import torch


EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command, started again, continues the run
# Windows, where no run trains but models are published, lacks the second and the third.
SIGNALS = tuple(each for each in signal.Signals if each.name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"))
ONE_PRESS = 1.0  # seconds in which a launcher may pass on the Ctrl-C that the terminal has sent to all processes

Handlers = dict[signal.Signals, Any]


class InterruptedRunError(RuntimeError):
    """Raised when a signal has stopped the run, with a checkpoint."""

    def __init__(self, number: int, step: int):
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        super().__init__(
            f"{name} stopped the run after step {step}, with a checkpoint; the same command continues from there."
        )


def set_handlers(numbers: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], Any]) -> Handlers:
    """Sets the handler of signals, and returns those before it.

    Python lets only the main thread do so: what runs in another one, as in a server, leaves the signals as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in numbers}


def restore_handlers(handlers: Handlers) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Interruption:
    """Holds back the signals while it is entered, so that all processes can agree when to stop.

    Every process calls `exchange` after each step. A process that had a signal tells the others while the next step
    runs, and all learn of it at the same call, one step later.
    """

    def __init__(self) -> None:
        self.received = 0
        self.pressed: float | None = None  # when Ctrl-C came first
        self.group: torch.distributed.ProcessGroup | None = None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # Flags are exchanged on the CPU: to read one from a GPU would wait for the GPU's work.
            self.group = cast(torch.distributed.ProcessGroup, torch.distributed.new_group(backend="gloo"))
        self.sent: tuple[torch.Tensor, torch.distributed.Work] | None = None

    def __enter__(self) -> "Interruption":
        self.previous = set_handlers(SIGNALS, self.note)
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        if error is not InterruptedRunError:
            restore_handlers(self.previous)
        # Else a launcher, told by the first process that leaves, signals the others: they end with the same code.
        if error is None and self.sent is not None:
            self.sent[1].wait()
        self.sent = self.group = None  # see `Session.end_training`

    def stop(self, step: int) -> None:
        """Stops the run if a signal came. All processes call this at the same points of a long task after `step`.

        Raises:
            InterruptedRunError: One of them had a signal.
        """
        number = self.exchange()
        if number:
            raise InterruptedRunError(number, step)

    def note(self, number: int, frame: FrameType | None) -> None:
        """Notes a signal.

        Raises:
            KeyboardInterrupt: It is a second Ctrl-C.
        """
        if number == signal.SIGINT and self.pressed is not None and time.monotonic() - self.pressed > ONE_PRESS:
            raise KeyboardInterrupt
        if number == signal.SIGINT and self.pressed is None:
            self.pressed = time.monotonic()
            if not int(os.environ.get("RANK", 0)):
                # A handler may interrupt a print, so that it cannot print itself.
                os.write(2, b"\nCtrl-C: finishes this step and saves it. A second one ends the run at once.\n")
        self.received = number

    def exchange(self) -> int:
        """Returns the signal on which all processes must stop now, or 0."""
        if self.group is None:
            return self.received
        agreed = 0
        if self.sent is not None:
            numbers, work = self.sent
            work.wait()
            agreed = int(numbers)
        if agreed:
            self.sent = None
            return agreed
        numbers = torch.tensor(self.received)
        work = torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MAX, group=self.group, async_op=True)
        self.sent = (numbers, work)
        return agreed
