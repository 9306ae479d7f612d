# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Ends a program of this project in a line at Ctrl-C while it still imports its libraries, which takes seconds.

Every program imports this module before the libraries. A program of yours that imports the package is left as it is.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType


INTERRUPTED = 130  # as shells say it of a program that Ctrl-C has ended
ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = (ROOT / "training", ROOT / "examples", ROOT / "examples" / "app")  # where they are in a checkout
COMMANDS = ("esvit-convert", "esvit-embed", "esvit-export")  # that are installed
IMPORT = b"import modeling_esvit.starting"


def is_own_program() -> bool:
    """Returns whether this process runs a program of this project, and not a script that lies beside them."""
    if sys.argv[:1] == ["-m"]:  # Python imports the package first, and only `orig_argv` names the module yet
        return sys.orig_argv[-len(sys.argv)].startswith("modeling_esvit.")
    name = getattr(sys.modules["__main__"], "__file__", None)
    if not name:  # typed line by line, a notebook, or a worker of `multiprocessing`
        return False
    file = Path(name).resolve()
    return file.name in COMMANDS or (file.parent in PROGRAMS and IMPORT in file.read_bytes())


def end_at_once(number: int, frame: FrameType | None) -> None:
    """Ends the process: there is nothing yet to save or to remove."""
    if os.environ.get("RANK") in (None, "", "0"):
        os.write(2, b"\nStopped by Ctrl-C.\n")  # a handler may interrupt a print, so that it cannot print itself
    os._exit(INTERRUPTED)


def raise_again() -> None:
    """Lets Ctrl-C raise KeyboardInterrupt, as it does in other programs, where the program now takes care of it."""
    if signal.getsignal(signal.SIGINT) is end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if (
    threading.current_thread() is threading.main_thread()  # Python takes signals in no other
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    and is_own_program()
):
    signal.signal(signal.SIGINT, end_at_once)
