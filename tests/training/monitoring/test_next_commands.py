# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the commands a run prints do what they say, and that its log counts what was left out."""

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.commands import run_program
from tests.helpers.documents import commands
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import read_log, tiny, train, write_images
from training.monitoring.next_commands import PUBLISH, drop_option, make_upload_command, publish_command
from training.options.hub_names import check_repo_id
from training.options.pretrain_options import parse_options
from training.run.session import Session


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1"]


def printed_command(printed: str, label: str) -> str:
    return next(line for line in printed.splitlines() if label in line).split(label)[1]


@pytest.mark.parametrize("launcher", [[], pytest.param(TORCHRUN, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_the_resume_command_resumes(tmp_path, launcher):
    images = write_images(tmp_path / "images")
    output = tmp_path / "a run's folder"
    done = run_program(["python", *launcher, "training/pretrain.py", *tiny(images, output, "--max_steps 2")])
    again = printed_command(done.stdout, "To go on: ")
    assert ("torch.distributed.run" in again) == bool(launcher)
    done = run_program(["sh", "-c", again], Path("/"))
    assert [record["step"] for record in read_log(output)] == list(range(1, 7)) and "To go on" not in done.stdout
    assert f"{PUBLISH} " in printed_command(done.stdout, "To publish it: ")


def test_an_option_is_dropped_with_its_value():
    command = ["pretrain.py", "--max_steps", "6", "--max-steps=7", "--lr", "1", "--max-steps", "8"]
    assert drop_option(command, "max_steps") == ["pretrain.py", "--lr", "1"]


def read_rival(*options: str) -> str:
    """Returns the model with which a run of these options says that it be compared."""
    run: Any = SimpleNamespace(options=parse_options(["--data", "x", *options]))
    run.plan = SimpleNamespace(last_step=6, num_steps=6)
    return next(line for line in Session.describe_next(run, Path("teacher")) if "--against" in line).split()[-1]


def test_a_run_is_compared_with_what_it_began_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_rival("--recipe", "own_images_small") == "untrained"
    for backbone in ("facebook/dinov2-small", "timm:NAME", "timm:local-dir:backbones/timm"):
        assert read_rival("--recipe", "adapt", "--backbone", backbone) == backbone
    assert read_rival("--architecture", "auto", "--backbone", "facebook/dinov2-small") == "untrained"  # its network
    (tmp_path / "run" / "teacher").mkdir(parents=True)
    (tmp_path / "run" / "teacher" / "config.json").touch()
    for start in ("run", "run/teacher"):
        assert read_rival("--init_from", start) == str(tmp_path / start)
    assert read_rival("--init_from", ".") == "untrained"  # a checkpoint, which evaluations do not take


def test_the_command_that_publishes_names_a_repository_that_can_be():
    *_, repo_id = shlex.split(publish_command('runs/my run\'s "x"'))
    check_repo_id(repo_id)


def test_a_classifier_is_published_as_the_page_says():
    """The page's command runs against the loopback Hub, in test_documentation.py."""
    words = shlex.split(make_upload_command(Path("runs/classifier")))
    assert words[2] == "USER/classifier"
    words[2] = "org/name"
    assert words in [shlex.split(command) for command in commands((ROOT / "README.md").read_text())]


def test_unreadable_images_are_counted_in_the_log(tmp_path, capsys):
    images = write_images(tmp_path / "images")
    for name in ("00", "01", "02"):
        (images / f"{name}.png").write_bytes(b"no image")
    train(tiny(images, tmp_path / "run", "--max_steps 5"))
    views = (tmp_path / "run" / "views.png").stat().st_mtime_ns
    capsys.readouterr()
    train(tiny(images, tmp_path / "run"))  # goes on, and knows what the first session has left out
    log, shown = read_log(tmp_path / "run"), capsys.readouterr().out
    assert [record["unreadable_images"] for record in log[-3:]] == [3, 3, 3]
    assert "Skipped 3 unreadable images:" in shown
    listed = (tmp_path / "run" / "unreadable.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == ["00.png", "01.png", "02.png"]
    assert (tmp_path / "run" / "views.png").stat().st_mtime_ns == views  # those of the first step
    assert all(0.1 < record["memory_gb"] < 100 for record in log)
    assert "To go on" not in shown
