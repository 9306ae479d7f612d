# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Sets of crops of both tasks: a step with each trains."""

from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from options import parse_options
from pretrain import Pretraining
from tiny_runs import losses_of, tiny, write_images


BOTH = pytest.mark.parametrize("task", ["view", "view+region"])


@pytest.fixture(autouse=True)
def fresh_accelerate():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images")


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
    before = {name: value.clone() for name, value in run.learner.student.named_parameters()}
    run.run()
    assert all(0 < loss < float("inf") for loss in losses_of(tmp_path))
    after = dict(run.learner.student.named_parameters())
    # Matrices alone: a bias that only shifts what a norm takes out has no gradient.
    matrices = [
        name for name, value in before.items() if value.ndim == 2 and value.requires_grad and "bias" not in name
    ]
    assert len(matrices) > 10 and not [name for name in matrices if torch.equal(before[name], after[name])]
