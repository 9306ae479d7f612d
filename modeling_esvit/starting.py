# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Ends a program of this project in a line at Ctrl-C while it still imports its libraries, which takes seconds.

Every program imports this module before the libraries. A program of yours that imports the package is left as it is.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType


INTERRUPTED = 130  # as shells say it of a program that Ctrl-C has ended
ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = (ROOT / "training", ROOT / "examples", ROOT / "examples" / "app")  # where they are in a checkout
COMMANDS = ("esvit-convert", "esvit-embed", "esvit-export")  # that are installed


def is_own_program() -> bool:
    """Returns whether this process runs a program of this project."""
    if sys.argv[:1] == ["-m"]:  # Python imports the package first, and only `orig_argv` names the module yet
        return sys.orig_argv[-len(sys.argv)].startswith("modeling_esvit.")
    file = Path(getattr(sys.modules["__main__"], "__file__", ""))
    return file.name in COMMANDS or file.resolve().parent in PROGRAMS


def end_at_once(number: int, frame: FrameType | None) -> None:
    """Ends the process: there is nothing yet to save or to remove."""
    if not int(os.environ.get("RANK", 0)):
        os.write(2, b"\nStopped by Ctrl-C.\n")  # a handler may interrupt a print, so that it cannot print itself
    os._exit(INTERRUPTED)


def raise_again() -> None:
    """Lets Ctrl-C raise KeyboardInterrupt, as it does in other programs, where the program now takes care of it."""
    if signal.getsignal(signal.SIGINT) is end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if is_own_program() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, end_at_once)
