# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Without what only POSIX has, as on Windows, models and embed work, and training says in one line what it needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import make_environment
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import tiny, write_images, write_model
from training.options.system import check_system


# Hides what Windows lacks from this project (libraries have other ways there), then runs a program as `python` does.
HIDE = """
import os, runpy, signal, sys
import accelerate, datasets, evaluate, matplotlib.pyplot, psutil, torch, transformers.modeling_layers
sys.modules["fcntl"] = sys.modules["resource"] = None
signals = ("SIGUSR1", "SIGUSR2", "SIGALRM")
calls = ("register_at_fork", "setpriority", "getpriority", "sched_getaffinity", "mkfifo", "O_DIRECTORY")
for module, names in ((signal, (*signals, "alarm")), (os, calls)):
    for name in names:
        delattr(module, name)
del signal.Signals._member_map_["SIGUSR1"], signal.Signals._member_map_["SIGUSR2"]
signal.Signals._member_names_ = [name for name in signal.Signals._member_names_ if not name.startswith("SIGUSR")]
sys.argv = sys.argv[1:]
if sys.argv[0] == "-m":
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_without_posix(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HIDE, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=make_environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_this_system_can_train():
    check_system()


def test_pretraining_says_in_one_line_what_it_needs(tmp_path):
    images = write_images(tmp_path / "images", 2)
    error = run_without_posix("training/pretrain.py", *tiny(images, tmp_path / "run"), code=1).stderr
    [line] = [line for line in error.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: Pretraining needs Linux or macOS (this system lacks fcntl, SIGALRM, SIGUSR1, ")
    assert "run it in WSL" in line and "Traceback" not in error and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_embed_works(tmp_path):
    model, images = write_model(tmp_path / "model"), write_images(tmp_path / "images", 3)
    run_without_posix("-m", "modeling_esvit.embed", model, images, "--output", tmp_path / "f.npz")
    assert (tmp_path / "f.npz").exists()


@pytest.mark.slow
@pytest.mark.parametrize("program", sorted(path.name for path in Path(ROOT, "training").glob("[a-z]*.py")))
def test_every_program_shows_its_help(program):
    run_without_posix(f"training/{program}", "--help")
