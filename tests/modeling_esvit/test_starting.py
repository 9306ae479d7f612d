# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how programs of this project end at Ctrl-C while they import their libraries."""

import ast
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from modeling_esvit.starting import INTERRUPTED, end_at_once, is_own_program

import pytest

from modeling_esvit.programs.ending import exit_with_message
from tests.helpers.commands import make_environment
from tests.helpers.paths import ROOT


FILES = [path for folder in ("training", "examples", "examples/app") for path in (ROOT / folder).glob("*.py")]
PROGRAMS = [path for path in FILES if '\nif __name__ == "__main__":\n' in path.read_text()]


def list_imports(source: str) -> list[str]:
    """Returns the modules that a file imports outside of functions, in the order of the file."""
    tree = ast.parse(source)
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    nodes.sort(key=lambda node: node.lineno)
    return [node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in nodes]


def heed_ctrl_c() -> None:
    """Lets a child end at Ctrl-C, which shells let their background jobs, perhaps these tests, ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    "words", [["training/pretrain.py"], ["-m", "modeling_esvit.embed"]], ids=lambda words: words[-1]
)
def test_ctrl_c_ends_a_program_in_a_line_while_it_imports(words):
    """Unless the imports are over: then it ends by its wrong command line, and with another code."""
    command = [sys.executable, *words, "--no_such_option"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=make_environment(), stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
    )
    maps = Path("/proc", str(process.pid), "maps")
    while "libtorch" not in maps.read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=300)
    assert (process.returncode, shown) == (INTERRUPTED, "\nStopped by Ctrl-C.\n")


@pytest.mark.parametrize("path", [*PROGRAMS, ROOT / "modeling_esvit" / "__init__.py"], ids=lambda path: path.stem)
def test_a_program_imports_it_before_the_libraries(path):
    imported = [name for name in list_imports(path.read_text()) if name.split(".")[0] not in sys.stdlib_module_names]
    assert imported[0] == "modeling_esvit.starting"


def run_as(monkeypatch, file: str | None, argv: list[str], original: list[str] | None = None) -> bool:
    """Returns whether a process is taken for a program of this project, by its file and command line."""
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(**({} if file is None else {"__file__": file})))
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", original or [sys.executable, *argv])
    return is_own_program()


def test_only_programs_of_this_project_are_changed(monkeypatch):
    knn, command = str(ROOT / "training" / "knn.py"), [sys.executable, "-u", "-m", "modeling_esvit.embed", "a", "b"]
    assert run_as(monkeypatch, knn, [knn, "model"])
    assert run_as(monkeypatch, None, ["-m", "a", "b"], command)
    assert run_as(monkeypatch, "/usr/bin/esvit-embed", ["/usr/bin/esvit-embed"])
    assert not run_as(monkeypatch, None, ["-m"], [sys.executable, "-m", "theirs.embed"])
    assert not run_as(monkeypatch, "/home/training/knn.py", ["/home/training/knn.py"])
    assert not run_as(monkeypatch, None, [knn, "model"])  # a worker of `multiprocessing`
    assert not run_as(monkeypatch, str(ROOT / "examples" / "checkout.py"), ["checkout.py"])  # lies beside them
    monkeypatch.chdir(ROOT / "training" / "data")
    for main in (SimpleNamespace(), SimpleNamespace(__file__=None)):
        monkeypatch.setitem(sys.modules, "__main__", main)
        assert not is_own_program()  # typed line by line


def test_a_program_then_takes_care_of_ctrl_c_itself():
    before = signal.signal(signal.SIGINT, end_at_once)
    try:
        with exit_with_message():
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        own = signal.signal(signal.SIGINT, signal.SIG_IGN)
        with exit_with_message():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN is not own
    finally:
        signal.signal(signal.SIGINT, before)
