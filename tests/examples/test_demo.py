# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the commands that the demo names at its end; `test_commands.py` runs the demo."""

import shlex
import sys
from pathlib import Path

from examples.demo import describe_next


def test_the_next_commands_find_the_interpreter_of_the_demo(tmp_path, monkeypatch):
    """`make demo` leaves its environment inactive: `python` is then another one, or none."""
    backbone = Path("a demo", "backbone")
    monkeypatch.setenv("PATH", str(tmp_path))
    words = [shlex.split(line, comments=True) for line in describe_next(backbone).splitlines()]
    assert [line[0] for line in words] == [sys.executable] * 3 and words[0][2] == words[2][2] == str(backbone)
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert [line.split()[0] for line in describe_next(backbone).splitlines()] == ["python"] * 3
