# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Says which file could not be written, and writes again after a failure that may pass."""

import errno
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError


logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# What a disk in a network, one that is busy or full, or a folder that somebody protects, may say once and not again.
PASSING = {
    number
    for name in (
        *("EIO", "EAGAIN", "EINTR", "EBUSY", "ESTALE", "ETIMEDOUT", "EREMOTEIO", "ENETDOWN", "ENETUNREACH"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ECONNRESET", "ENOTCONN", "ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM"),
    )
    if (number := getattr(errno, name, None)) is not None
}
WAITS = (1, 3, 9)  # seconds before each further attempt
TORCH_WRITER = "inline_container"  # in the messages of torch's writer, which do not say why
SYSTEM_ERROR = re.compile(r"\(os error ([0-9]+)\)")  # in the message of an error of safetensors


@contextmanager
def name_failed_write(path: Path) -> Iterator[None]:
    """Lets the error of a block that writes `path` name it: the system's own names no file that was open already.

    Raises:
        OSError: In place of the own errors of safetensors and torch, too.
    """
    try:
        yield
    except SafetensorError as error:
        number = SYSTEM_ERROR.search(str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    except RuntimeError as error:
        if TORCH_WRITER not in str(error):
            raise
        raise OSError(errno.EIO, "it cannot be written to its end (is the disk full?)", str(path)) from error
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def repeat_writing(action: Callable[[], Result]) -> Result:
    """Calls `action`, and again after each of WAITS while it fails to write for a reason that may pass.

    Raises:
        OSError: It failed for another reason, or too often.
    """
    for seconds in WAITS:
        try:
            return action()
        except OSError as error:
            cause = error if error.errno is not None else error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in PASSING:
                raise
            logger.warning("A write has failed (%s), and is tried again in %d s.", cause, seconds)
        time.sleep(seconds)
    return action()
