# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Pretraining of a backbone of transformers with BatchNorm: its running statistics, and several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from modeling_esvit import EsViTConfig, EsViTModel
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import CROPS, HEADS, LENGTH, MEANS, read_losses, write_images
from training.options.pretrain_options import OptionError, parse_options
from training.pretrain import Pretraining


RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
PP_LCNET = {"model_type": "pp_lcnet"}  # transformers can recompute its blocks, and they have BatchNorms


pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images")


def arguments(images: Path, output: Path, changes: str = "", fields: dict = RESNET) -> list[str]:
    file = output.with_suffix(".json")
    file.write_text(json.dumps(fields))
    paths = ["--data", str(images), "--output_dir", str(output), "--backbone", str(file)]
    return [*paths, *f"--architecture auto {HEADS} {CROPS} {LENGTH} {MEANS} {changes}".split()]


def weights(output: Path, step: int, network: str) -> dict[str, torch.Tensor]:
    return load_file(output / "checkpoints" / f"step-{step:08d}" / network / "model.safetensors")


def is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var"))


class PoisonedPretraining(Pretraining):
    """One pixel of the images of the last step is not a number."""

    def batches(self, step):
        for index, batch in enumerate(super().batches(step)):
            if index == 2:
                batch.groups[0][0, 0, 0, 0] = float("nan")
            yield batch


def test_running_statistics(images, tmp_path):
    """The teacher has those of its own passes, and they are published; a skipped step leaves all as they were."""
    output = tmp_path / "run"
    PoisonedPretraining(
        parse_options(arguments(images, output, "--max_steps 3 --save_every 1 --keep_checkpoints 3"))
    ).run()
    student, teacher = (weights(output, 3, network) for network in ("student", "teacher"))
    for name in (name for name in teacher if name.endswith("num_batches_tracked")):
        assert (teacher[name], student[name]) == (2, 4)  # of two steps; the student sees two sizes of crops
    statistics = [name for name in teacher if is_statistic(name)]
    assert len(statistics) > 8 and not [name for name in statistics if torch.equal(teacher[name], student[name])]
    for network, skipped in (("student", student), ("teacher", teacher)):
        assert all(torch.equal(tensor, skipped[name]) for name, tensor in weights(output, 2, network).items())
    published = load_file(output / "teacher" / "model.safetensors")
    assert all(torch.equal(published[name], teacher[name]) for name in teacher)


def test_the_teacher_is_an_average_of_parameters_alone(images, tmp_path):
    output = tmp_path / "run"
    options = parse_options(arguments(images, output, "--max_steps 2 --save_every 1 --momentum_teacher 0.5"))
    run = Pretraining(options)
    run.run()
    momentum = run.plan.momentum[1]
    before, teacher, student = (weights(output, *which) for which in ((1, "teacher"), (2, "teacher"), (2, "student")))
    for name, _ in run.learner.teacher.named_parameters():
        torch.testing.assert_close(teacher[name], momentum * before[name] + (1 - momentum) * student[name], msg=name)


def test_blocks_with_batch_norm_are_not_recomputed(images, tmp_path):
    model = EsViTModel(EsViTConfig(architecture="auto", backbone_config=PP_LCNET))
    with pytest.raises(ValueError, match="EsViTModel does not support"):
        model.gradient_checkpointing_enable()
    with pytest.raises(OptionError, match="pp_lcnet, whose BatchNorms would count each batch twice"):
        Pretraining(parse_options(arguments(images, tmp_path / "run", "--gradient_checkpointing", PP_LCNET)))


@pytest.mark.slow
def test_two_processes_equal_one(images, tmp_path):
    """With batches of half the size each: losses and running statistics of both networks."""
    one, two = tmp_path / "one", tmp_path / "two"
    Pretraining(parse_options(arguments(images, one, "--max_steps 3"))).run()
    AcceleratorState._reset_state(reset_partial_state=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    halves = arguments(images, two, "--max_steps 3 --batch_size 4")
    subprocess.run([*launcher, "training/pretrain.py", *halves], cwd=ROOT, env=environment, check=True)
    assert read_losses(two) == pytest.approx(read_losses(one), rel=1e-4)
    for network in ("student", "teacher"):
        expected, found = (weights(output, 3, network) for output in (one, two))
        for name in expected:
            if is_statistic(name) or "num_batches" in name:
                torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4)
