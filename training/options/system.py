# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Says which systems can train: those with the locks and signals of POSIX, Linux and macOS."""

import importlib.util
import os
import signal

from training.options.errors import SharedError


MODULES = ("fcntl",)  # locks the folder of a run
SIGNALS = ("SIGALRM", "SIGUSR1", "SIGUSR2")  # stop a run with a checkpoint
CALLS = ("getpriority", "setpriority")  # let a push to the Hub run beside training


class UnsupportedSystemError(SharedError, OSError):
    """Raised when this system cannot train."""


def check_system() -> None:
    """Checks that this system has what a run needs.

    Raises:
        UnsupportedSystemError: It has not, as Windows.
    """
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    missing += [name for name in SIGNALS if not hasattr(signal, name)]
    missing += [name for name in CALLS if not hasattr(os, name)]
    if missing:
        raise UnsupportedSystemError(
            f"Pretraining needs Linux or macOS (this system lacks {', '.join(missing)}): on Windows run it in WSL. "
            "Models, embed, export, conversion and evaluation work here."
        )
