# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks who chooses the precision of a run, and that a run keeps it."""

import json
import re

import pytest
import torch

from modeling_esvit.storage.atomic import record_file
from tests.helpers.commands import run_program, torchrun
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import read_losses, tiny, train
from training.learning.precision import (
    LAUNCHER,
    Precision,
    PrecisionError,
    check_precision,
    choose_matmul_precision,
    choose_precision,
)
from training.options.pretrain_options import parse_options
from training.pretrain import main
from training.state.checkpoints import ResumeError


@pytest.fixture
def native(monkeypatch):
    """Returns what sets whether this device computes bf16 natively; it does not to begin with."""

    def set_native(answer: bool) -> None:
        monkeypatch.setattr("training.learning.precision.has_native_bfloat16", lambda device: answer)

    monkeypatch.delenv(LAUNCHER, raising=False)
    set_native(False)
    return set_native


@pytest.mark.parametrize(
    "option, launcher, is_native, expected, reason",
    [
        ("auto", None, False, "no", "auto: .* lacks native bf16"),
        ("auto", None, True, "bf16", "auto: .* has native bf16"),
        ("auto", "no", True, "no", "by the launcher; .* natively: --mixed_precision bf16"),
        ("auto", "no", False, "no", "by the launcher$"),
        ("auto", "fp16", True, "fp16", "by the launcher$"),
        ("no", None, True, "no", "by an option$"),
        ("no", "bf16", True, "no", "by an option, not bf16, which the launcher says"),
        ("bf16", "bf16", False, "bf16", "by an option$"),
    ],
)
def test_option_then_launcher_then_device(native, monkeypatch, tmp_path, option, launcher, is_native, expected, reason):
    native(is_native)
    if launcher is not None:
        monkeypatch.setenv(LAUNCHER, launcher)
    options = parse_options(["--mixed_precision", option, "--output", str(tmp_path)])
    precision = choose_precision(options)
    assert precision.name == expected and not precision.is_kept
    assert re.search(reason, precision.reason), precision.reason


def test_a_launcher_may_leave_the_gpu_out(native, monkeypatch, tmp_path):
    """`accelerate launch --cpu` on a machine with a GPU that computes bf16 natively: its CPU decides."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr("training.learning.precision.has_native_bfloat16", lambda device: device.type == "cuda")
    options = parse_options(["--mixed_precision", "auto", "--output", str(tmp_path)])
    assert choose_precision(options).reason == "auto: cuda has native bf16"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert choose_precision(options).reason == "auto: cpu lacks native bf16"
    with pytest.raises(PrecisionError, match="fp16 needs a GPU"):
        check_precision(Precision("fp16", "by an option"))


def test_a_run_takes_it_and_saves_it(native, images, tmp_path, capsys):
    native(True)
    run = train(tiny(images, tmp_path, "--max_steps 1 --mixed_precision auto"))
    assert run.accelerator.mixed_precision == "bf16"
    shown = capsys.readouterr().out
    assert "precision        = bf16 autocast (auto: cpu has native bf16)" in shown, shown
    assert parse_options(["--recipe", str(tmp_path / "options.yaml")]).mixed_precision == "bf16"
    progress = json.loads((tmp_path / "checkpoints/last/training_state/progress.json").read_text())
    assert progress["options"]["mixed_precision"] == "bf16"


@pytest.mark.slow
def test_a_continued_run_keeps_its_precision(native, images, tmp_path, monkeypatch, capsys):
    """Begins on a machine without native bf16, and goes on where the device and the launcher would take it."""
    train(tiny(images, tmp_path / "whole", "--mixed_precision auto"))
    train(tiny(images, tmp_path / "parts", "--mixed_precision auto --max_steps 2"))
    native(True)
    monkeypatch.setenv(LAUNCHER, "bf16")
    run = train(tiny(images, tmp_path / "parts", "--mixed_precision auto"))
    assert run.accelerator.mixed_precision == "no"
    assert "precision        = fp32 (as the run began, not bf16, which the launcher says)" in capsys.readouterr().out
    assert read_losses(tmp_path / "parts") == read_losses(tmp_path / "whole")
    with pytest.raises(ResumeError, match="mixed_precision was 'no' and is 'bf16'"):
        train(tiny(images, tmp_path / "parts", "--mixed_precision bf16"))


def test_a_precision_that_only_the_old_machine_had_is_refused(native, images, tmp_path):
    train(tiny(images, tmp_path, "--max_steps 1"))
    path = tmp_path / "checkpoints" / "last" / "training_state" / "progress.json"
    path.write_text(path.read_text().replace('"mixed_precision": "no"', '"mixed_precision": "fp16"'))
    record_file(tmp_path / "checkpoints" / "last", "training_state/progress.json")
    with pytest.raises(SystemExit, match="fp16 needs a GPU; the run began with it, so continue it on such a device"):
        main(tiny(images, tmp_path, "--mixed_precision auto"))


def test_a_precision_of_the_launcher_alone_is_refused(native, images, tmp_path, monkeypatch):
    with pytest.raises(PrecisionError, match="says mixed_precision fp8; a run has no, bf16, fp16"):
        check_precision(Precision("fp8", "by the launcher"))
    monkeypatch.setenv(LAUNCHER, "fp8")
    with pytest.raises(SystemExit, match="says mixed_precision fp8"):
        main(tiny(images, tmp_path, "--mixed_precision auto --dry_run"))


@pytest.mark.parametrize(
    "arguments, device, amx, expected",
    [
        ("--mixed_precision bf16", "cuda", False, "high"),
        ("--mixed_precision no", "cuda", False, "highest"),
        ("--mixed_precision bf16", "cpu", False, "highest"),
        ("--mixed_precision bf16", "cpu", True, "medium"),
        ("--mixed_precision no", "cpu", True, "highest"),
        ("--mixed_precision bf16 --matmul_precision highest", "cpu", True, "highest"),
        ("--mixed_precision no --matmul_precision medium", "cpu", False, "medium"),
    ],
)
def test_float32_products(arguments, device, amx, expected, monkeypatch):
    monkeypatch.setattr("training.learning.precision.has_amx", lambda: amx)
    assert choose_matmul_precision(parse_options(arguments.split()), torch.device(device)) == expected


def test_a_run_sets_the_precision_of_products(images, tmp_path):
    before = torch.get_float32_matmul_precision()
    try:
        train(tiny(images, tmp_path / "medium", "--max_steps 1 --matmul_precision medium"))
        assert torch.get_float32_matmul_precision() == "medium"
        train(tiny(images, tmp_path / "auto", "--max_steps 1 --mixed_precision no"))
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.slow
@pytest.mark.parametrize("said", ["no", "bf16"])
def test_the_real_launcher(images, tmp_path, said):
    launcher = ["accelerate", "launch", "--num_processes", "1", "--num_machines", "1", "--dynamo_backend", "no"]
    arguments = tiny(images, tmp_path / "run", "--mixed_precision auto --dry_run")
    done = run_program([*launcher, "--mixed_precision", said, "training/pretrain.py", *arguments])
    assert f"precision        = {'bf16 autocast' if said == 'bf16' else 'fp32'} (by the launcher" in done.stdout


AGREE = """
import os, sys
from training.learning import precision
from training.pretrain import main
precision.has_native_bfloat16 = lambda device: os.environ["RANK"] == "1"
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_processes_of_different_devices_are_refused(images, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(AGREE)
    options = tiny(images, tmp_path / "run", "--batch_size 4 --max_steps 1 --mixed_precision auto")
    done = run_program([*torchrun(2), program, *options], code=1, PYTHONPATH=str(ROOT))
    message = "process 0: fp32 (auto: cpu lacks native bf16), process 1: bf16 autocast (auto: cpu has native bf16)"
    assert f"error: The processes do not compute in one precision ({message})" in done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()
