# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Keeps a second process from writing what one is writing: its temporary file or folder is locked for so long.

After a kill the lock is gone, and what it left can be removed. Where nothing can be locked, as on Windows and on some
file systems, both write.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from modeling_esvit.errors import EsViTError


CAN_LOCK = find_spec("fcntl") is not None


class InUseError(EsViTError, RuntimeError):
    """Raised when another process is writing the same file or folder."""


def make_error(final: Path) -> InUseError:
    return InUseError(f"Another process is writing {final} at this moment. Wait for its end, or name another place.")


@contextmanager
def lock(partial: Path, final: Path) -> Iterator[None]:
    """Keeps other processes from an existing temporary file or folder during the block.

    Args:
        final: what it is written for, which the message names.

    Raises:
        InUseError: another process has locked it, or has just removed it.
    """
    if not CAN_LOCK:
        yield
        return
    try:
        descriptor = os.open(partial, os.O_RDONLY)
    except FileNotFoundError as error:
        raise make_error(final) from error
    try:
        take(descriptor, final)
        if not is_at(descriptor, partial):
            raise make_error(final)
        yield
    finally:
        os.close(descriptor)


def take(descriptor: int, final: Path) -> None:
    """Takes the lock of what is open, where that can be done.

    Raises:
        InUseError: another process has locked it.
    """
    import fcntl  # which Windows lacks

    with suppress(OSError):  # some file systems refuse such locks
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise make_error(final) from error


def is_at(descriptor: int, path: Path) -> bool:
    """Returns whether what is open still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
