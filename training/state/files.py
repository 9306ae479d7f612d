# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes into the folder of a run, from the main process alone.

A failure to write shows in one place. One that may pass, as of a disk in a network, is tried again a few times. Any
other is broadcast, and all processes raise it together, so that none waits for one that is gone.
"""

import errno
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from modeling_esvit import EsViTForPreTraining
from modeling_esvit.storage.atomic import replace_folder
from modeling_esvit.storage.failed_writes import repeat_writing
from training.options.errors import SharedError


logger = logging.getLogger(__name__)

Result = TypeVar("Result")

PROBE = ".probe-"
VISIBLE_WITHIN = 60.0  # seconds for which a network file system may still say that a new file is not there


class RunFolderError(SharedError):
    """Raised on all processes when the folder of a run cannot be used."""


class UnwritableCheckpointError(RunFolderError, OSError):
    """Raised when a run cannot write its state: a full disk, a read-only folder, one that the machines do not share."""


class FolderInUseError(RunFolderError):
    """Raised when another run is writing into the folder."""


class FolderLock:
    """Keeps a second run out of a folder for as long as the process lives that took the lock.

    It is a record lock, which workers do not inherit: after a kill the folder is free at once, although they may live a
    little longer.
    """

    def __init__(self, folder: Path):
        self.path = folder / ".lock"
        self.file: TextIO | None = None

    def take(self) -> None:
        """Takes the lock.

        Raises:
            FolderInUseError: Another process has it; the message names that process.
        """
        import fcntl  # which Windows lacks: see `training.options.system`

        self.file = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                logger.warning(
                    "%s cannot be locked (%s), so nothing keeps a second run out of this folder.",
                    self.path,
                    error.strerror,
                )
                return
            other = self.path.read_text(encoding="utf-8").strip() or "which has not written its name yet"
            raise FolderInUseError(
                f"Another run, {other}, writes into {self.path.parent}. Wait for its end, stop it, or give another "
                "--output."
            ) from error
        self.file.truncate(0)
        self.file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self.file.flush()

    def release(self) -> None:
        """Frees the folder, on the process that took it."""
        if self.file is not None:
            self.file.close()


def on_main(accelerator: Accelerator, action: Callable[[], Result]) -> Result:
    """Calls `action` on the main process alone. All processes call this, and get the result.

    Raises:
        RunFolderError: On all processes, if `action` raised it.
    """
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = repeat_writing(action)
        except RunFolderError as error:
            outcome[1] = error
    result, failure = broadcast_object_list(outcome)
    if failure is not None:
        raise failure
    return result


@contextmanager
def report_write_errors(folder: Path) -> Iterator[None]:
    """Explains a failure of the block to write below `folder`.

    Raises:
        UnwritableCheckpointError: In place of what the block raised.
    """
    try:
        yield
    except OSError as error:
        raise UnwritableCheckpointError(
            f"{folder} cannot be written: {error}. Earlier checkpoints are still good. Free space on that "
            "disk, or make the folder writable, and start the same command again; or move the run's folder to another "
            "disk, and give its new place as --output."
        ) from error


@contextmanager
def replace_run_folder(final: Path, later: Iterable[str] = ()) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `final` after the block: see `replace_folder`.

    Raises:
        UnwritableCheckpointError: Something could not be written.
    """
    with report_write_errors(final.parent), replace_folder(final, later) as folder:
        yield folder


def save_model_folder(model: EsViTForPreTraining, path: Path) -> None:
    """Writes a model folder, in place of any older one.

    Raises:
        UnwritableCheckpointError: It cannot be written.
    """
    with replace_run_folder(path) as folder:
        model.save_pretrained(folder)


def check_shared(accelerator: Accelerator, folder: Path) -> None:
    """Creates `folder`, and checks that the main process can write there and all others, on all machines, see it.

    A run whose processes do not all find the same checkpoint could not be continued.

    Raises:
        UnwritableCheckpointError: On all processes.
    """
    probe = on_main(accelerator, lambda: make_probe(folder))
    sees = wait_until_visible(probe)
    hosts = gather_object([(socket.gethostname(), sees)])
    if accelerator.is_main_process:
        probe.unlink()
    blind = sorted({host for host, sees in hosts if not sees})
    if blind:
        raise UnwritableCheckpointError(
            f"{folder} is not shared: processes on {', '.join(blind)} do not see what the main one, on {hosts[0][0]}, "
            "writes there. Give an --output on a file system that all machines mount."
        )


def make_probe(folder: Path) -> Path:
    """Writes a file under a new name: a file system may remember that a name, once looked for, does not exist."""
    with report_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"{PROBE}*"):
            leftover.unlink()
        probe = folder / f"{PROBE}{uuid.uuid4().hex}"
        probe.write_text("Can all processes of the run see this?\n", encoding="utf-8")
    return probe


def wait_until_visible(path: Path) -> bool:
    """Returns whether this process sees the file within VISIBLE_WITHIN seconds."""
    deadline = time.monotonic() + VISIBLE_WITHIN
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
