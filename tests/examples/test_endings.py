# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that every example ends in one line, after Ctrl-C as after an error that a user can put right."""

import os
import runpy
import signal
import subprocess
import sys
import time

import pytest

from modeling_esvit.errors import EsViTError
from modeling_esvit.programs.ending import INTERRUPTED
from modeling_esvit.programs.parser import ProgramParser
from tests.helpers.commands import make_environment
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import CROPS, HEADS, MEANS, write_images, write_model


APP = ROOT / "examples" / "app" / "app.py"
EXAMPLES = [path for path in sorted(ROOT.glob("examples/*.py")) if "def main(" in path.read_text()]


@pytest.mark.parametrize("path", [*EXAMPLES, APP], ids=lambda path: path.stem)
@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [(KeyboardInterrupt(), INTERRUPTED, "\nStopped by Ctrl-C.\n"), (EsViTError("so it is"), "error: so it is", "")],
    ids=["ctrl-c", "error"],
)
def test_an_example_ends_in_one_line(path, error, code, shown, monkeypatch, capsys):
    """Raises the error where the command line is read, in the whole program but for the libraries that it imports."""
    if path == APP:
        monkeypatch.syspath_prepend(APP.parent)

    def fail(*arguments):
        raise error

    monkeypatch.setattr(ProgramParser, "parse_known_args", fail)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == code and capsys.readouterr().err == shown


@pytest.mark.slow
def test_ctrl_c_ends_an_example_after_the_run_that_it_started(tmp_path):
    """A terminal sends it to both: the run saves its last step, and then the example ends."""
    for split in ("train", "test"):
        write_images(tmp_path / "data" / split, 12, "ab")
    model, run = write_model(tmp_path / "model"), tmp_path / "run"
    command = [sys.executable, "examples/continue_pretraining.py", model, "--data", tmp_path / "data", "--output", run]
    command += f"{HEADS} {CROPS} {MEANS} --epochs 5000 --batch_size 4 --k 5 --save_every 1000000".split()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, start_new_session=True, env=make_environment(), **pipes
    )
    log = run / "log.jsonl"
    while not (log.exists() and len(log.read_text().splitlines()) > 3):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, shown = process.communicate(timeout=300)
    assert process.returncode == INTERRUPTED and "Traceback" not in shown, shown
    assert shown.splitlines()[-3].startswith("Ctrl-C stopped the run after step"), shown
    assert shown.endswith("\nStopped by Ctrl-C.\n") and (run / "checkpoints" / "last").exists()
