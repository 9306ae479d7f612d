# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains with every set of crops and every way to make up a batch: the same images give the same run."""

import json

import pytest
import torch

from tests.helpers.commands import run_program, torchrun
from tests.helpers.tiny_runs import read_losses, tiny, train
from training.options.pretrain_options import parse_options
from training.pretrain import Pretraining


BOTH = pytest.mark.parametrize("task", ["view", "view+region"])


@BOTH
@pytest.mark.parametrize(
    "crops",
    [
        "--local_crops_numbers 0",
        "--local_crop_sizes 32",  # as large as the global crops
        "--local_crop_sizes 16 24 --local_crops_numbers 1 2",
        "--mixed_precision bf16 --local_crop_sizes 16 32 --local_crops_numbers 2 0",
    ],
)
def test_a_step_trains(images, tmp_path, task, crops):
    run = Pretraining(parse_options(tiny(images, tmp_path, f"--task {task} {crops} --warmup_epochs 0 --max_steps 1")))
    before = {name: value.clone() for name, value in run.student.named_parameters()}
    run.run()
    assert all(0 < loss < float("inf") for loss in read_losses(tmp_path))
    after = dict(run.student.named_parameters())
    # Matrices alone: a bias that only shifts what a norm takes out has no gradient.
    matrices = [
        name for name, value in before.items() if value.ndim == 2 and value.requires_grad and "bias" not in name
    ]
    assert len(matrices) > 10 and not [name for name in matrices if torch.equal(before[name], after[name])]


@pytest.mark.slow
@BOTH
def test_two_processes_that_accumulate_equal_one(images, tmp_path, task):
    same = f"--task {task} --drop_path_rate 0"
    train(tiny(images, tmp_path / "one", same))
    smaller = f"{same} --batch_size 2 --gradient_accumulation_steps 2"
    run_program([*torchrun(2), "training/pretrain.py", *tiny(images, tmp_path / "two", smaller)])
    assert read_losses(tmp_path / "two") == pytest.approx(read_losses(tmp_path / "one"), rel=1e-4)


@pytest.mark.slow
def test_compiled_with_accumulation_and_recomputation_equals_eager(images, tmp_path):
    same = "--drop_path_rate 0 --depths 1 1 --batch_size 4 --gradient_accumulation_steps 2 --max_steps 2"
    train(tiny(images, tmp_path / "eager", same))
    compiled = f"{same} --compile --gradient_checkpointing"
    train(tiny(images, tmp_path / "compiled", compiled))
    assert read_losses(tmp_path / "compiled") == pytest.approx(read_losses(tmp_path / "eager"), rel=1e-4)


COMPILED = """
import json, sys
from torch.distributed import distributed_c10d
from training.learning.compiling import STATIC
from training.options.pretrain_options import parse_options
from training.pretrain import Pretraining

STATIC["backend"] = "aot_eager"  # traces as the compiler does, and takes seconds
run = Pretraining(parse_options(sys.argv[1:]))
group = distributed_c10d._get_default_group()
timeout = group._get_backend(run.accelerator.device).options._timeout.total_seconds()
found, end = {"timeout": timeout}, run.session.end_training


def note() -> None:
    found.update(run.wrapped._get_ddp_logging_data())
    end()


run.session.end_training = note
run.run()
if run.accelerator.is_main_process:
    print(json.dumps(found, default=str))
"""


@pytest.mark.slow
def test_two_compiled_processes_with_several_buckets_equal_one(images, tmp_path):
    """Gradients of 2 MB fill more than the first bucket of DDP, which holds 1 MB; they are not stored twice."""
    same = "--drop_path_rate 0 --max_steps 3 --head_hidden_size 512"
    train(tiny(images, tmp_path / "one", f"{same} --compile off"))
    arguments = tiny(images, tmp_path / "two", f"{same} --compile on --batch_size 4 --process_timeout 7")
    done = run_program([*torchrun(2), "--no-python", "python", "-c", COMPILED, *arguments])
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert len(found["rebuilt_bucket_sizes"].split(",")) > 1  # those from the second step on
    assert found["gradient_as_bucket_view"] and found["timeout"] == 7 * 60
    assert read_losses(tmp_path / "two") == pytest.approx(read_losses(tmp_path / "one"), rel=1e-4)
