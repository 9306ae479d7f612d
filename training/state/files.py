# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""How a run writes what must last. The main process alone writes, so a failure shows in one place; it is told to the
others, and all raise it together: none waits for one that is gone. What has its final name is whole, also after a kill
or a power cut at any instant.
"""

import errno
import fcntl
import logging
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError

from modeling_esvit import EsViTForPreTraining
from modeling_esvit.errors import EsViTError


logger = logging.getLogger(__name__)

Result = TypeVar("Result")

PARTIAL = ".partial"
PROBE = ".probe-"
VISIBLE_WITHIN = 60.0  # seconds for which a network file system may still say that a new file is not there


class RunFolderError(EsViTError):
    """Something about the folder of a run that a user can put right; the same on all processes."""


class UnwritableCheckpointError(RunFolderError, OSError):
    """A run cannot write its state: a full disk, a read-only folder, one that the machines do not share."""


class FolderInUseError(RunFolderError):
    """Another run is writing into the folder."""


class FolderLock:
    """Keeps a second run out of a folder for as long as the process lives that took it. A record lock, which workers do
    not inherit: after a kill the folder is free at once, though they may live a little longer.
    """

    def __init__(self, folder: Path):
        self.path = folder / ".lock"
        self.file: TextIO | None = None

    def take(self) -> None:
        """Raises:
        FolderInUseError: another process has it, which the message names.
        """
        self.file = self.path.open("a+")
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                logger.warning("%s: no lock (%s), so nothing keeps a second run out.", self.path, error.strerror)
                return
            raise FolderInUseError(
                f"Another run, {self.path.read_text().strip()}, writes into {self.path.parent}. Wait for its end, stop "
                "it, or give another --output_dir."
            ) from error
        self.file.truncate(0)
        self.file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self.file.flush()


def on_main(accelerator: Accelerator, action: Callable[[], Result]) -> Result:
    """`action()` on the main process alone. Every process calls this, and gets the result.

    Raises:
        RunFolderError: as `action` did; on all processes.
    """
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome[0] = action()
        except RunFolderError as error:
            outcome[1] = error
    result, failure = broadcast_object_list(outcome)
    if failure is not None:
        raise failure
    return result


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raises:
    UnwritableCheckpointError: the block failed to write below `folder`.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UnwritableCheckpointError(
            f"{folder} cannot be written: {error}. Checkpoints that were there are still good. Free space on that "
            "disk, or make the folder writable, and start the same command again; or move the run's folder to another "
            "disk, and give its new place as --output_dir."
        ) from error


@contextmanager
def written_beside(final: Path) -> Iterator[Path]:
    """An empty folder to write into. After the block it is forced to the disk, and takes the name `final`, and the place
    of any older folder; if the block fails, it is removed, since the disk may be full.

    Raises:
        UnwritableCheckpointError: something could not be written.
    """
    partial, old = (final.with_name(f"{final.name}{ending}") for ending in (PARTIAL, f".old{PARTIAL}"))
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with writing(final.parent):
            partial.mkdir(parents=True)
            yield partial
            force_to_disk(partial)
            if final.exists():
                shutil.rmtree(old, ignore_errors=True)
                final.rename(old)
            partial.rename(final)
            fsync(final.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def model_folder(model: EsViTForPreTraining, path: Path) -> None:
    """Write a model folder, in place of any older one.

    Raises:
        UnwritableCheckpointError: it cannot be written.
    """
    with written_beside(path) as folder:
        model.save_pretrained(folder)


def write_text(path: Path, text: str) -> None:
    """A small file, replaced at once."""
    partial = path.with_name(path.name + PARTIAL)
    partial.write_text(text)
    fsync(partial)
    partial.replace(path)
    fsync(path.parent)


def point(link: Path, folder: Path) -> None:
    """Make `link` a relative link to its sibling `folder`, at once: there is no instant without it."""
    partial = link.with_name(link.name + PARTIAL)
    partial.unlink(missing_ok=True)
    partial.symlink_to(folder.name, target_is_directory=True)
    partial.replace(link)
    fsync(link.parent)


def fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def force_to_disk(folder: Path) -> None:
    """Files first, then the folders that name them."""
    paths = list(folder.rglob("*"))
    for path in [*(p for p in paths if p.is_file()), *(p for p in paths if p.is_dir()), folder]:
        fsync(path)


def check_shared(accelerator: Accelerator, folder: Path) -> None:
    """Make `folder`, and make sure that the main process can write there and the others, maybe on other machines, see it:
    a run whose processes do not all find the same checkpoint could not continue.

    Raises:
        UnwritableCheckpointError: on all processes.
    """
    probe = on_main(accelerator, lambda: make_probe(folder))
    sees = becomes_visible(probe)
    hosts = gather_object([(socket.gethostname(), sees)])
    if accelerator.is_main_process:
        probe.unlink()
    blind = sorted({host for host, sees in hosts if not sees})
    if blind:
        raise UnwritableCheckpointError(
            f"{folder} is not shared: processes on {', '.join(blind)} do not see what the main one, on {hosts[0][0]}, "
            "writes there. Give an --output_dir on a file system that all machines mount."
        )


def make_probe(folder: Path) -> Path:
    """A file with a name that no process can have looked for yet: what is known not to exist may be remembered."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"{PROBE}*"):
            leftover.unlink()
        probe = folder / f"{PROBE}{uuid.uuid4().hex}"
        probe.write_text("Can all processes of the run see this?\n")
    return probe


def becomes_visible(path: Path) -> bool:
    deadline = time.monotonic() + VISIBLE_WITHIN
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
