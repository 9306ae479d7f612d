# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what stands for a bar where there is no terminal."""

import io
import os
import re
import struct
import sys
from types import SimpleNamespace

import pytest

from modeling_esvit.embed import progress
from modeling_esvit.embed.progress import is_watched, show_progress


@pytest.mark.parametrize("shown", [True, False])
def test_lines_outside_a_terminal(monkeypatch, shown):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    monkeypatch.setattr(progress, "is_watched", lambda: False)
    file = io.StringIO()
    with show_progress("features of mine", 3, "image", shown=shown, file=file) as bar:
        for _ in range(3):
            bar.update()
    lines = file.getvalue().split("\n")
    assert [re.sub(r"\d\d:\d\d", "T", line) for line in lines] == (
        ["features of mine: 1/3 images, T so far, T left", "features of mine: 2/3 images, T so far, T left", ""]
        if shown
        else [""]
    )


def test_short_work_prints_nothing(monkeypatch):
    monkeypatch.setattr(progress, "is_watched", lambda: False)
    file = io.StringIO()
    with show_progress("features", 3, "image", file=file) as bar:
        bar.update(2)
    assert file.getvalue() == ""


def test_a_bar_in_a_terminal(monkeypatch):
    monkeypatch.setattr(progress, "is_watched", lambda: True)
    file = io.StringIO()
    with show_progress("features", 2, "image", file=file, mininterval=0) as bar:
        bar.update(2)
    assert "features: 100%|" in file.getvalue()


@pytest.mark.parametrize("columns, watched", [(0, False), (80, True)])
def test_a_terminal_of_no_width_shows_no_bar(monkeypatch, columns, watched):
    pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("4H", columns and 24, columns, 0, 0))
    with os.fdopen(outer), os.fdopen(inner, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        assert is_watched() is watched


@pytest.mark.parametrize(
    "shell, watched", [(None, False), (SimpleNamespace(), False), (SimpleNamespace(kernel=1), True)]
)
def test_a_notebook_is_known_by_its_kernel(monkeypatch, shell, watched):
    """The packages of notebooks alone, which others import, make none; nor does IPython in a terminal."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert is_watched() is watched
