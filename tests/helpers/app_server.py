# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Serves the page in a process of its own, from a folder laid out as a Space, as the app's README.md says."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.paths import ROOT


APP = ROOT / "examples" / "app"


@contextmanager
def serve_app(
    model: str, folder: Path, *arguments: str, kept: Path | None = None
) -> Iterator[tuple[str, subprocess.Popen]]:
    """Yields the address of the page, and its process.

    Args:
        model: What the variable MODEL names.
        folder: Where the Space is laid out.
        arguments: More of the command.
        kept: Where gradio keeps files.
    """
    space = folder / "space"
    shutil.copytree(APP, space, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "modeling_esvit", space / "modeling_esvit", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "MODEL": model, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment |= {"GRADIO_TEMP_DIR": str(kept or folder / "kept")}
    environment.pop("PYTHONPATH", None)
    log = folder / "log.txt"
    with log.open("w") as file:
        command = [sys.executable, "app.py", *arguments]
        process = subprocess.Popen(command, cwd=space, env=environment, stdout=file, stderr=file)
    try:
        yield wait_for_address(process, log), process
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for_address(process: subprocess.Popen, log: Path) -> str:
    for _ in range(240):
        found = re.search(r"http://127.0.0.1:\d+", log.read_text())
        if found:
            return found.group()
        assert process.poll() is None, log.read_text()
        time.sleep(0.5)
    raise AssertionError(log.read_text())
