# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Pretraining of a CvT: steps of both tasks, running statistics, exact resume, skipped steps, several processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, pipeline

from modeling_esvit import EsViTForPreTraining
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import read_losses, tiny, write_images
from training.options.pretrain_options import PretrainOptions, parse_options
from training.pretrain import Pretraining


NETWORK = (
    "--architecture cvt-tiny --embed_dim 8 --stage_dims 8 16 24 32 --depths 1 1 1 1 --num_heads 1 2 2 4 "
    "--window_size 3 --global_crop_size 64 --local_crop_sizes 32"
)


pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images")


def options(images: Path, output: Path, changes: str = "") -> PretrainOptions:
    return parse_options(tiny(images, output, f"{NETWORK} {changes}"))


def weights(output: Path, step: int, network: str) -> dict[str, torch.Tensor]:
    return load_file(output / "checkpoints" / f"step-{step:08d}" / network / "model.safetensors")


def is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var"))


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory) -> Path:
    """A run of six steps."""
    output = tmp_path_factory.mktemp("whole")
    Pretraining(options(images, output, "--save_every 1 --keep_checkpoints 6")).run()
    AcceleratorState._reset_state(reset_partial_state=True)
    return output


def test_three_steps_then_reload(images, whole):
    """Both losses fall on every network; what was saved loads in every way and gives features."""
    log = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert all(record["view_loss"] > 0 and record["region_loss"] > 0 for record in log)
    for network in ("student", "teacher"):
        first, last = (weights(whole, step, network) for step in (1, 3))
        assert not [name for name in first if "encoder" in name and torch.equal(first[name], last[name])]
    trained = EsViTForPreTraining.from_pretrained(whole / "teacher").eval()
    assert trained.config.architecture == "cvt" and trained.config.hidden_act == "quick_gelu"
    backbone = AutoModel.from_pretrained(whole / "teacher").eval()
    image = Image.open(next(images.glob("*.png")))
    features = pipeline("image-feature-extraction", model=str(whole / "teacher"))(image, pool=True)
    assert len(features[0]) == backbone.config.hidden_size == 32


def test_the_teacher_has_statistics_of_its_own(whole):
    """Of its forward passes, one a step over global crops; the student's are of both sizes. They are published."""
    student, teacher = (weights(whole, 6, network) for network in ("student", "teacher"))
    counts = [name for name in teacher if name.endswith("num_batches_tracked")]
    assert len(counts) == 4
    for name in counts:
        assert teacher[name] == 6 and student[name] == 12
    statistics = [name for name in teacher if is_statistic(name)]
    assert len(statistics) == 8 and not [n for n in statistics if torch.equal(teacher[n], student[n])]
    published = load_file(whole / "teacher" / "model.safetensors")
    assert all(torch.equal(published[name], teacher[name]) for name in teacher)


def test_a_stopped_run_continues_exactly(images, whole, tmp_path):
    Pretraining(options(images, tmp_path, "--max_steps 4")).run()
    AcceleratorState._reset_state(reset_partial_state=True)
    Pretraining(options(images, tmp_path)).run()
    assert read_losses(tmp_path) == read_losses(whole)
    ours, theirs = (load_file(output / "teacher" / "model.safetensors") for output in (tmp_path, whole))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_recomputation_gives_the_same_run(images, whole, tmp_path):
    Pretraining(options(images, tmp_path, "--gradient_checkpointing True --save_every 1 --keep_checkpoints 6")).run()
    assert read_losses(tmp_path) == pytest.approx(read_losses(whole), rel=1e-4)
    ours, theirs = weights(tmp_path, 6, "student"), weights(whole, 6, "student")
    for name in ours:
        if "tracked" in name or is_statistic(name):
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-2, atol=1e-3)


class PoisonedPretraining(Pretraining):
    """One pixel of the images of the last step is not a number."""

    def batches(self, step):
        for index, batch in enumerate(super().batches(step)):
            if index == 2:
                batch.groups[0][0, 0, 0, 0] = float("nan")
            yield batch


def test_a_skipped_step_leaves_the_statistics_as_they_were(images, whole, tmp_path):
    PoisonedPretraining(options(images, tmp_path, "--max_steps 3 --save_every 1 --keep_checkpoints 3")).run()
    for network in ("student", "teacher"):
        before, after = weights(tmp_path, 2, network), weights(tmp_path, 3, network)
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert all(torch.equal(before[name], tensor) for name, tensor in weights(whole, 2, network).items())


@pytest.mark.slow
def test_two_processes_equal_one(images, tmp_path):
    """With batches of half the size each: losses, weights and running statistics of both networks."""
    changes = "--drop_path_rate 0 --max_steps 3"
    Pretraining(options(images, tmp_path / "one", changes)).run()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = tiny(images, tmp_path / "two", f"{NETWORK} {changes} --batch_size 4")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*launcher, "training/pretrain.py", *arguments], cwd=ROOT, env=environment, check=True)
    assert read_losses(tmp_path / "two") == pytest.approx(read_losses(tmp_path / "one"), rel=1e-4)
    for network in ("student", "teacher"):
        one, two = (weights(tmp_path / run, 3, network) for run in ("one", "two"))
        for name in one:
            if is_statistic(name):
                torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)
