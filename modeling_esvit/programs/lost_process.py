# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Says in a sentence that another process of the same program is gone, or hangs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed import DistError

from modeling_esvit.errors import EsViTError


class LostProcessError(EsViTError, RuntimeError):
    """Raised when another process of the same program does not answer any more."""


def is_from_another_process(error: RuntimeError) -> bool:
    """Returns whether an error comes from the exchange between processes. Those of gloo have no type of their own."""
    return isinstance(error, DistError) or "/gloo/" in str(error)


@contextmanager
def report_lost_process(patience: str = "too long") -> Iterator[None]:
    """Turns the failure of an exchange with other processes, within the block, into an error that says what to do.

    Where NCCL waits in vain on a GPU, its watchdog ends the process with a message of its own instead.

    Args:
        patience: How long a process that hangs is waited for.

    Raises:
        LostProcessError: Another process has ended, hangs, or cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_from_another_process(error):
            raise
        rank, processes = (os.environ.get(name, "?") for name in ("RANK", "WORLD_SIZE"))
        reason = str(error).splitlines()[0]
        raise LostProcessError(
            f"Process {rank} of {processes} (counted from 0) lost another one, which has ended, hangs {patience}, or "
            "cannot be reached over the network; what that one printed last says why, unless it was killed, as for "
            f"want of memory. What was saved is good: the same command continues from it. ({reason})"
        ) from error
