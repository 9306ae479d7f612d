# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Signals with which schedulers announce that a machine is taken away: SIGTERM, SIGUSR1, SIGUSR2. All processes stop after
the same step, so that a checkpoint can be written, and the program ends with `EXIT_CODE`. Before training begins, and
after it, they end the program at once: there is nothing to save.

What started the processes ends with a code of its own: SLURM's `srun` with the highest of theirs, so with `EXIT_CODE`;
`torchrun` and `accelerate launch` with 1. Of signals that they get themselves, these two pass on SIGTERM, and others if
`PET_SIGNALS_TO_HANDLE` names them (see `examples/launch`); `accelerate launch` of one process
dies and leaves it running.
"""

import signal
from types import FrameType
from typing import cast

import torch


EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command, started again, goes on
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class InterruptedRunError(RuntimeError):
    """The run stopped, with a checkpoint, because a signal asked for it."""

    def __init__(self, number: int, step: int):
        super().__init__(
            f"{signal.Signals(number).name} stopped the run after step {step}, with a checkpoint; the same command "
            "goes on from there."
        )


class Interruption:
    """Used as a context, in which the signals are only noted. Every process calls `exchange` after each step: whoever had
    a signal tells the others beside the next step, and all learn of it at the same call, one step later.
    """

    def __init__(self) -> None:
        self.received = 0
        self.group: torch.distributed.ProcessGroup | None = None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # Through the host: a flag on a GPU could be read only by waiting for it.
            self.group = cast(torch.distributed.ProcessGroup, torch.distributed.new_group(backend="gloo"))
        self.sent: tuple[torch.Tensor, torch.distributed.Work] | None = None

    def __enter__(self) -> "Interruption":
        self.previous = {number: signal.signal(number, self.note) for number in SIGNALS}
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        if error is InterruptedRunError:
            return  # a launcher, told by the first process that leaves, signals the others: they end with the same code
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        if error is None and self.sent is not None:
            self.sent[1].wait()

    def stop(self, step: int) -> None:
        """To be called by all processes while they do something long after `step`, at the same points.

        Raises:
            InterruptedRunError: one of them had a signal.
        """
        number = self.exchange()
        if number:
            raise InterruptedRunError(number, step)

    def note(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    def exchange(self) -> int:
        """The signal after which all processes are to stop now, or 0."""
        if self.group is None:
            return self.received
        agreed = 0
        if self.sent is not None:
            numbers, work = self.sent
            work.wait()
            agreed = int(numbers)
        numbers = torch.tensor(self.received)
        work = torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MAX, group=self.group, async_op=True)
        self.sent = (numbers, work)
        return agreed
