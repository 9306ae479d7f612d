# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Pretraining of a ViL: steps of both tasks, chunks that are drawn and all of them at the end, exact resume."""

import json
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, pipeline

from modeling_esvit import EsViTArchitectureError, EsViTForPreTraining
from modeling_esvit.vil_attention import EsViTViLSparseAttention
from tests.helpers.tiny_runs import read_losses, tiny, write_images
from training.learning.networks import build_networks
from training.options.pretrain_options import PretrainOptions, parse_options
from training.pretrain import Pretraining


NETWORK = (
    "--architecture vil-tiny --image_size 64 --embed_dim 8 --depths 1 1 2 1 --num_heads 1 1 2 2 --window_size 3 "
    "--global_crop_size 64 --local_crop_sizes 32 --vil_mode 1"
)


pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images")


def options(images: Path, output: Path, changes: str = "") -> PretrainOptions:
    return parse_options(tiny(images, output, f"{NETWORK} {changes}"))


def modes(pretraining: Pretraining) -> set[int]:
    networks = (pretraining.learner.student, pretraining.learner.teacher)
    modules = [module for network in networks for module in network.modules()]
    return {module.mode for module in modules if isinstance(module, EsViTViLSparseAttention)}


def test_three_steps_then_reload(images, tmp_path):
    """Both losses fall on every network; what was saved loads in every way and gives features."""
    output = tmp_path / "run"
    Pretraining(options(images, output, "--max_steps 3 --save_every 1 --keep_checkpoints 3")).run()
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log] == [1, 2, 3]
    assert all(record["view_loss"] > 0 and record["region_loss"] > 0 for record in log)
    for network in ("student", "teacher"):
        first, last = (
            load_file(output / "checkpoints" / f"step-0000000{step}" / network / "model.safetensors") for step in (1, 3)
        )
        assert not [name for name in first if "encoder" in name and torch.equal(first[name], last[name])]
    trained = EsViTForPreTraining.from_pretrained(output / "teacher").eval()
    assert trained.config.architecture == "vil" and trained.config.vil_mode == 1
    backbone = AutoModel.from_pretrained(output / "teacher").eval()
    image = Image.open(next(images.glob("*.png")))
    features = pipeline("image-feature-extraction", model=str(output / "teacher"))(image, pool=True)
    assert len(features[0]) == backbone.config.hidden_size == 64


SWITCHED = "--drop_path_rate 0.3 --vil_mode_switch 0.5"  # at the second of two epochs of three steps


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("whole")
    pretraining = Pretraining(options(images, output, SWITCHED))
    assert modes(pretraining) == {1}
    pretraining.run()
    assert modes(pretraining) == {0}
    AcceleratorState._reset_state(reset_partial_state=True)
    return output


@pytest.mark.parametrize("stop", [2, 4])
def test_resume_draws_as_the_uninterrupted_run(stop, images, whole, tmp_path):
    """Chunks after the stop come from the restored generator; the switch, before or after it, from the epoch."""
    Pretraining(options(images, tmp_path, f"{SWITCHED} --max_steps {stop}")).run()
    AcceleratorState._reset_state(reset_partial_state=True)
    continued = Pretraining(options(images, tmp_path, SWITCHED))
    continued.run()
    assert modes(continued) == {0} and read_losses(tmp_path) == read_losses(whole)
    ours, theirs = (load_file(output / "teacher" / "model.safetensors") for output in (tmp_path, whole))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_modes_differ_until_the_switch(images, whole, tmp_path):
    """Drawn chunks, all chunks, and drawn ones to the end are three different runs."""
    Pretraining(options(images, tmp_path / "all", f"{SWITCHED} --vil_mode 0")).run()
    AcceleratorState._reset_state(reset_partial_state=True)
    never = Pretraining(options(images, tmp_path / "never", "--drop_path_rate 0.3 --vil_mode_switch 1"))
    never.run()
    assert modes(never) == {1}
    assert read_losses(tmp_path / "all")[0] != read_losses(whole)[0]
    losses = read_losses(tmp_path / "never")
    assert losses[:3] == read_losses(whole)[:3] and losses[3:] != read_losses(whole)[3:]


@pytest.mark.slow
def test_recomputation_draws_the_same(images, whole, tmp_path):
    Pretraining(options(images, tmp_path, f"{SWITCHED} --gradient_checkpointing True")).run()
    assert read_losses(tmp_path) == pytest.approx(read_losses(whole), rel=1e-5)


def test_the_mode_is_refused_for_other_architectures():
    with pytest.raises(EsViTArchitectureError, match="vil_mode is for a ViL; not for a Swin"):
        build_networks(PretrainOptions(vil_mode=1), torch.device("cpu"))
