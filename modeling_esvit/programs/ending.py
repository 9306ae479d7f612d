# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Ends a program of the package with a line instead of a traceback."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from modeling_esvit.starting import INTERRUPTED, raise_again

from modeling_esvit.errors import EsViTError
from modeling_esvit.programs.lost_process import report_lost_process
from modeling_esvit.storage.shown_text import escape_controls
from modeling_esvit.storage.url_secrets import redact_urls


TERMINATED = 143  # the same of SIGTERM
OF_MESSAGES = "\t\n"  # controls that messages have


class Termination(KeyboardInterrupt):
    """Raised in place of the program's sudden end by SIGTERM, so that it removes its temporary folders as on Ctrl-C."""


def raise_termination(number: int, frame: FrameType | None) -> None:
    raise Termination


@contextmanager
def leave_on_sigterm() -> Iterator[None]:
    """Lets SIGTERM, by which schedulers and launchers end a program, leave the block by an exception.

    Python takes signals in the main thread alone; in another one they stay as they are.

    Raises:
        Termination: The signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, raise_termination)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is raise_termination:  # else the block has a reason of its own
            signal.signal(signal.SIGTERM, before)


def describe_stop(error: KeyboardInterrupt) -> tuple[str, int]:
    """Returns what has stopped the program, and the status with which it ends."""
    return ("SIGTERM", TERMINATED) if isinstance(error, Termination) else ("Ctrl-C", INTERRUPTED)


def exit_stopped(error: KeyboardInterrupt) -> None:
    """Ends the program with a line that says what has stopped it."""
    name, code = describe_stop(error)
    print(f"\nStopped by {name}.", file=sys.stderr)
    sys.exit(code)


@contextmanager
def exit_with_message(
    is_for_user: Callable[[BaseException], bool] | None = None, get_message: Callable[[BaseException], str] = str
) -> Iterator[None]:
    """Ends the program with the message of an error of this project or of a file, or after Ctrl-C or SIGTERM.

    Passwords and queries of URLs are left out of it. So ends one process of several, too, when it loses another.
    Before, `modeling_esvit.starting` takes care of Ctrl-C.

    Args:
        is_for_user: whether a user can put such an error right; others keep their tracebacks. By default all are.
        get_message: what is said of it.
    """
    try:
        raise_again()
        with leave_on_sigterm(), report_lost_process():
            yield
    except KeyboardInterrupt as error:
        exit_stopped(error)
    except (EsViTError, OSError) as error:
        if is_for_user is not None and not is_for_user(error):
            raise
        sys.exit(f"error: {escape_controls(redact_urls(get_message(error)), OF_MESSAGES)}")
