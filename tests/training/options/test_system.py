# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Without what only POSIX has, as on Windows, models and embed work, and training says in one line what it needs."""

import subprocess
import sys
from pathlib import Path

import pytest

from modeling_esvit.embed.files import FORMATS, load_features
from tests.helpers.commands import make_environment
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import tiny, write_images, write_model
from training.options.system import check_system


# Hides what Windows lacks from this project (libraries have other ways there), then runs a program as `python` does.
HIDE = """
import os, runpy, signal, sys
import accelerate, datasets, evaluate, matplotlib.pyplot, psutil, torch, transformers.modeling_layers
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None
signals = ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGKILL", "SIGHUP", "SIGQUIT", "SIGCHLD", "SIGSTOP")
calls = (
    *("register_at_fork", "setpriority", "getpriority", "nice", "sched_getaffinity", "mkfifo", "fork", "killpg"),
    *("O_DIRECTORY", "O_NONBLOCK", "geteuid", "getuid", "getgid", "getpgid", "setsid", "uname", "statvfs", "fchmod"),
)
for module, names in ((signal, (*signals, "alarm", "sigwait", "pthread_sigmask")), (os, calls)):
    for name in names:
        if hasattr(module, name):
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


def run_without_posix(*arguments: object, code: int = 0, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HIDE, *map(str, arguments)]
    environment = make_environment(PYTHONPATH=str(ROOT))
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_this_system_can_train():
    check_system()


@pytest.mark.slow
def test_pretraining_says_in_one_line_what_it_needs(tmp_path):
    images = write_images(tmp_path / "images", 2)
    error = run_without_posix("training/pretrain.py", *tiny(images, tmp_path / "run"), code=1).stderr
    [line] = [line for line in error.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: Pretraining needs Linux or macOS (this system lacks fcntl, SIGALRM, SIGUSR1, ")
    assert "run it in WSL" in line and "Traceback" not in error and not (tmp_path / "run").exists()


EVERYTHING = """
import importlib, pkgutil, sys
import modeling_esvit
names = [each.name for each in pkgutil.walk_packages(modeling_esvit.__path__, "modeling_esvit.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
from modeling_esvit.embed.command import main
from modeling_esvit.embed.files import FORMATS
for suffix in FORMATS:
    for more in ([], ["--overwrite", "--part_size", "1"]):  # also over an output that exists
        main([*sys.argv[1:], "--output", f"features{suffix}", *more])
"""


@pytest.mark.slow
def test_every_module_is_imported_and_embed_works(tmp_path):
    model, images = write_model(tmp_path / "model"), write_images(tmp_path / "images", 2)
    (tmp_path / "everything.py").write_text(EVERYTHING)
    done = run_without_posix(tmp_path / "everything.py", model, images, folder=tmp_path)
    assert int(done.stdout.split()[0]) > 60 and done.stdout.count("2 of 2 images") == 2 * len(FORMATS)
    assert [len(load_features(tmp_path / f"features{suffix}").names) for suffix in FORMATS] == [2] * len(FORMATS)


@pytest.mark.slow
@pytest.mark.parametrize("program", sorted(path.name for path in Path(ROOT, "training").glob("[a-z]*.py")))
def test_every_program_shows_its_help(program):
    run_without_posix(f"training/{program}", "--help")
