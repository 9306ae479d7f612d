# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the commands a run prints do what they say, and that its log counts what was left out."""

import shlex
from pathlib import Path

import pytest

from tests.helpers.commands import run_program
from tests.helpers.tiny_runs import read_log, tiny, train, write_images
from training.monitoring.next_commands import PUBLISH, drop_option, publish_command
from training.options.hub_names import check_repo_id


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


def test_the_command_that_publishes_names_a_repository_that_can_be():
    *_, repo_id = shlex.split(publish_command('runs/my run\'s "x"'))
    check_repo_id(repo_id)


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
    assert "3 unreadable images were skipped:" in shown
    listed = (tmp_path / "run" / "unreadable.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in listed] == ["00.png", "01.png", "02.png"]
    assert (tmp_path / "run" / "views.png").stat().st_mtime_ns == views  # those of the first step
    assert all(0.1 < record["memory_gb"] < 100 for record in log)
    assert "To go on" not in shown
