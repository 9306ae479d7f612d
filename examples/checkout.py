# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs programs of this checkout from other ones."""

import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]


def run_program(name: str, *arguments: object) -> None:
    """Runs a program, such as `training/pretrain.py`, and ends this one with its status if it fails: it has said why.

    A terminal sends Ctrl-C to both, and a run then saves its last step; so this one ends after it.
    """
    program = subprocess.Popen([sys.executable, str(ROOT / name), *map(str, arguments)])
    try:
        code = program.wait()
    except KeyboardInterrupt:
        program.wait()  # a second Ctrl-C ends both at once
        raise
    if code:
        sys.exit(code)
