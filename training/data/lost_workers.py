# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reports workers of a loader that are killed or hang, instead of waiting for them for ever."""

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from threading import Event, Thread
from typing import TypeVar

import psutil

from modeling_esvit.errors import EsViTError
from training.data.shared_memory import describe_free_memory


logger = logging.getLogger(__name__)

POLL = 1.0  # seconds between two looks at how long the program waits
REPORT = 30.0  # seconds without a batch, after which, and then again and again, it is said
PATIENCE = 1800.0  # seconds without a batch, after which nothing is expected any more
TOO_MANY_FILES = "Too many open files"  # torch's message begins so
GRACE = 5  # seconds for the end of a process that was killed

Batch = TypeVar("Batch")


class LostWorkerError(EsViTError, RuntimeError):
    """Raised when a worker that makes batches was killed, or does not answer."""


class WorkerWatch(AbstractContextManager):
    """Watches, in a thread, how long the program waits for its workers, and ends them when that is too long.

    The program may wait inside of an exchange with one worker, which takes no limit of time: only the end of that
    worker ends it. Left, the watch ends all workers.
    """

    def __init__(self, workers: Collection[BaseProcess], patience: float):
        self.workers, self.patience = workers, patience
        self.since: float | None = None  # when the program began to wait
        self.found: str | None = None  # the states of workers that were given up
        self.closed = Event()
        self.thread = Thread(target=self.look, name="worker-watch", daemon=True)

    def __enter__(self) -> "WorkerWatch":
        if self.workers:
            self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.closed.set()
        if self.workers:
            self.thread.join()
        end_workers(self.workers)

    def look(self) -> None:
        """Says again and again that there is no batch, and gives the workers up after `patience` seconds."""
        reports = 0
        while not self.closed.wait(POLL):
            since = self.since
            waited = 0.0 if since is None else time.monotonic() - since
            if waited >= self.patience:
                self.found = f"made no batch for {waited:.0f} s: {describe_workers(self.workers)}"
                for worker in self.workers:
                    worker.kill()
                return
            reports = min(reports, int(waited // REPORT))
            if waited >= REPORT * (reports + 1):
                reports += 1
                states = describe_workers(self.workers)
                logger.warning("No batch for %.0f s: %s. Waiting for %.0f s at most.", waited, states, self.patience)

    def has_ended(self) -> bool:
        """Returns whether a worker has ended, or does so in a moment: its connections close first."""
        return bool(wait([worker.sentinel for worker in self.workers], timeout=GRACE))

    def wait_for_batch(self, batches: Iterator[Batch]) -> Batch:
        """Returns the next batch.

        Raises:
            LostWorkerError: A worker has ended, or was given up.
            StopIteration: There are no more.
        """
        self.since = time.monotonic()
        try:
            return next(batches)
        except (RuntimeError, EOFError, OSError) as error:
            if self.found is None and (isinstance(error, RuntimeError) or not self.has_ended()):
                raise  # of an image, or for `report_lost_worker`
            raise LostWorkerError(
                f"The workers that decode images {self.found or f'were lost: {describe_workers(self.workers)}'}. A "
                "machine that is short of memory kills one: lower --workers. The last checkpoint is good: the same "
                "command continues from it, with --workers 0 without workers. "
                "They may wait for a disk or server that does not answer; --process_timeout is for how many minutes "
                "the run waits for them."
            ) from error
        finally:
            self.since = None


def describe_workers(workers: Collection[BaseProcess]) -> str:
    """Says what the system knows of each worker, and how much memory there is for what they send."""
    states = [f"worker {worker.pid} {find_status(worker)}" for worker in workers]
    return ", ".join([*states, *describe_free_memory()])


def find_status(worker: BaseProcess) -> str:
    """Says what the system knows of a worker. One that is about to end runs on for a moment after its sentinel."""
    try:
        status = psutil.Process(worker.pid).status()
    except psutil.Error:
        return "has ended"
    return "has ended" if status == psutil.STATUS_ZOMBIE or wait([worker.sentinel], timeout=0) else f"is {status}"


def end_workers(workers: Collection[BaseProcess]) -> None:
    """Ends workers that still live, also those that do not answer a signal, such as stopped ones."""
    for worker in workers:
        with suppress(RuntimeError):  # torch's note of the death, which it raises wherever the program is
            if worker.is_alive():
                worker.kill()
                worker.join(GRACE)


@contextmanager
def report_lost_worker() -> Iterator[None]:
    """Turns torch's error for a worker that has ended by itself, within the block, into one that says what to do.

    Raises:
        LostWorkerError: A worker was killed, or this process may open no more files.
    """
    try:
        yield
    except RuntimeError as error:
        if str(error).startswith(TOO_MANY_FILES):
            raise LostWorkerError(
                "This process may have no more files open, and each batch of a worker is some: raise the limit by "
                "`ulimit -n 4096` before the same command, which continues, or lower --workers."
            ) from error
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise LostWorkerError(
            f"A worker that decodes images was lost: {str(error).splitlines()[0].rstrip('. ')}. A machine that is "
            "short of memory kills one: lower --workers. The last checkpoint is good: the same command continues "
            "from it."
        ) from error
