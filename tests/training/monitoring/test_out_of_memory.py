# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a run without enough memory ends with advice in its own numbers, and that the advice holds."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from tests.helpers.tiny_runs import read_losses, tiny, train, write_images
from training.monitoring.out_of_memory import advise_options, is_out_of_memory
from training.options.pretrain_options import parse_options
from training.pretrain import main


def test_the_command_ends_with_advice(tmp_path, monkeypatch):
    """Fails for real to allocate 4 terabytes for the prototypes; the disk is said to be large enough."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**18))
    many = "--num_prototypes 100000000 --head_bottleneck_size 10000"
    arguments = tiny(write_images(tmp_path / "images"), tmp_path / "run", many)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    message = str(stopped.value)
    assert message.startswith("error: ") and "can't allocate memory: you tried to allocate 4000000000000" in message
    assert "is not enough for 8 images in 4 crops at a time" in message
    assert "--batch_size 4 --gradient_accumulation_steps 2" in message


def test_other_errors_are_not_taken_for_it(tmp_path):
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))


@pytest.mark.parametrize(
    "changes, expected",
    [
        ("--batch_size 32", "--batch_size 16 --gradient_accumulation_steps 2 "),
        ("--batch_size 32 --gradient_accumulation_steps 4", "--batch_size 16 --gradient_accumulation_steps 8 "),
        ("--batch_size 15", "--batch_size 5 --gradient_accumulation_steps 3 "),
        ("--batch_size 7", "--batch_size 1 --gradient_accumulation_steps 7 "),
        ("--batch_size 6 --mixup 0.8 --task view", "--batch_size 2 --gradient_accumulation_steps 3 "),
        ("--batch_size 1", None),
        ("--batch_size 2 --cutmix 1 --task view", None),
        ("--batch_size 1 --gradient_checkpointing", None),
    ],
)
def test_advice(changes, expected):
    options = parse_options(changes.split())
    advice = advise_options(options)
    assert expected in advice if expected else "--batch_size" not in advice
    assert ("--gradient_checkpointing" in advice) != options.gradient_checkpointing
    assert "65536 --num_prototypes" in advice and "224 px and [8] of [96] px" in advice


@pytest.mark.slow
def test_the_advice_gives_the_same_result(tmp_path):
    arguments = tiny(write_images(tmp_path / "images"), tmp_path / "one", "--drop_path_rate 0")
    advice = advise_options(parse_options(arguments)).split()
    start = advice.index("--batch_size")
    train(arguments)
    smaller = [*arguments, *advice[start : start + 4], "--output", str(tmp_path / "other")]
    train(smaller)
    assert read_losses(tmp_path / "other") == pytest.approx(read_losses(tmp_path / "one"), rel=1e-4)
