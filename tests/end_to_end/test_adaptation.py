# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Adapts pretrained backbones: frozen at first, then with rates that fall from layer to layer; resumed, published."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoBackbone, AutoModel

from tests.helpers.commands import run_program, torchrun
from tests.helpers.tiny_models import (
    DINO_V2_REGISTERS,
    DINO_V3,
    DINO_V3_CONVNEXT,
    HIERA,
    RESNET,
    SWIN_V2,
    auto_config,
)
from tests.helpers.tiny_runs import (
    assert_equal_weights,
    read_losses,
    read_weights,
    tiny,
    tiny_auto,
    train,
    write_labelled_images,
)
from training.learning.layers import scale_rates
from training.options.errors import OptionError
from training.options.pretrain_options import parse_options
from training.pretrain import Pretraining


KINDS = {
    "dinov2_with_registers": DINO_V2_REGISTERS,
    "dinov3_vit": DINO_V3,
    "dinov3_convnext": DINO_V3_CONVNEXT,
    "swinv2": SWIN_V2,
    "hiera": HIERA,
    "resnet": RESNET,
}
EVERY = [pytest.param(name, marks=pytest.mark.slow) for name in KINDS]
SAVED = "--save_every 1 --keep_checkpoints 6"
PREFIX = "esvit.encoder.backbone."


def adapt(name: str, images: Path, output: Path, changes: str = "") -> list[str]:
    """Returns the arguments of a run of 2 epochs x 3 steps, whose backbone has weights and is frozen in the first."""
    folder = output.with_name(f"{name}-pretrained")
    if not folder.exists():
        torch.manual_seed(3)
        AutoBackbone.from_config(auto_config(KINDS[name]).backbone_config).save_pretrained(folder)
    more = "--local_crop_sizes 64" if name == "hiera" else ""
    given = f"--backbone_weights --freeze_backbone_epochs 1 --layer_decay 0.75 --region_matching location {more}"
    arguments = tiny_auto(images, output, KINDS[name], f"{given} --momentum_teacher 0.9 {changes}")
    arguments[arguments.index("--backbone") + 1] = str(folder)
    return arguments


def read_backbone(output: Path, step: int, network: str) -> dict[str, torch.Tensor]:
    weights = read_weights(output, step, network)
    return {name: tensor for name, tensor in weights.items() if name.startswith(PREFIX)}


def is_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("name", EVERY)
def test_frozen_then_trained_resumed_published_and_loaded(name, images, tmp_path):
    """Nothing in the backbone moves in the first epoch, statistics of BatchNorms included; then everything does."""
    whole = train(adapt(name, images, tmp_path / "whole", SAVED))
    pretrained = load_file(tmp_path / f"{name}-pretrained" / "model.safetensors")
    for network in ("student", "teacher"):
        for step in (1, 3):
            for key, tensor in read_backbone(tmp_path / "whole", step, network).items():
                assert torch.equal(tensor, pretrained[key.removeprefix(PREFIX)]), key
        before, after = (read_weights(tmp_path / "whole", step, network) for step in (3, 6))
        still = [key for key, tensor in before.items() if torch.equal(tensor, after[key]) and tensor.ndim > 1]
        assert not [key for key in still if not key.endswith("mask_token")]
    assert not torch.equal(
        *(read_weights(tmp_path / "whole", step, "student")["view_head.mlp.0.weight"] for step in (1, 3))
    )
    for stop in (2, 3, 4):
        output = tmp_path / f"stopped-{stop}"
        train(adapt(name, images, output, f"{SAVED} --max_steps {stop}"))
        train(adapt(name, images, output, SAVED))
        assert read_losses(output) == read_losses(tmp_path / "whole")
        assert_equal_weights(output / "teacher", tmp_path / "whole" / "teacher")
        assert_equal_weights(*(each / "checkpoints" / "last" / "student" for each in (output, tmp_path / "whole")))
    published = ["--repo_id", "ada/adapted", "--output", tmp_path / "published", "--dry_run"]
    run_program(["python", "training/publish.py", tmp_path / "whole", *published])
    loaded, pixels = AutoModel.from_pretrained(tmp_path / "published").eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixels).pooler_output, whole.teacher.esvit.eval()(pixels).pooler_output)


@pytest.mark.parametrize("name", ["dinov2_with_registers", "dinov3_vit"])
@torch.no_grad()
def test_regions_are_the_patches_of_the_last_block_without_class_and_register_tokens(name, images, tmp_path):
    run = Pretraining(parse_options(adapt(name, images, tmp_path / "run")))
    backbone, pixels = run.student.esvit.encoder.backbone.eval(), torch.randn(2, 3, 64, 64)
    last = backbone(pixels, output_hidden_states=True).hidden_states[-1]
    norm = backbone.get_submodule("layernorm" if name.startswith("dinov2") else "norm")
    others = 1 + KINDS[name]["num_register_tokens"]
    assert last.shape[1] == others + 64
    torch.testing.assert_close(run.student.esvit.eval()(pixels).last_hidden_state, norm(last)[:, others:])


def test_a_step_moves_each_layer_by_its_rate(images, tmp_path):
    """The first step of AdamW moves what has a gradient by its rate, whatever the gradient is."""
    run = Pretraining(parse_options(tiny(images, tmp_path, "--layer_decay 0.5 --weight_decay 0 --warmup_epochs 0")))
    before = {name: parameter.detach().clone() for name, parameter in run.student.named_parameters()}
    with run.session as session, session.steps() as steps:
        step, batches = next(steps)
        run.train_step(batches, step)
    for name, factor in scale_rates(run.student, 0.5).items():
        if name.endswith("weight"):
            moved = (run.student.get_parameter(name) - before[name]).abs().max().item()
            assert moved == pytest.approx(run.plan.lr[0] * factor, rel=0.02), name


@pytest.mark.slow
def test_statistics_stay_through_an_evaluation(images, tmp_path):
    """It puts the teacher into evaluation mode and back."""
    labelled = write_labelled_images(tmp_path)
    output = tmp_path / "run"
    run = train(
        adapt(
            "resnet", images, output, f"{SAVED} --keep_checkpoints 9 --epochs 3 --freeze_backbone_epochs 2 {labelled}"
        )
    )
    assert is_equal(read_backbone(output, 1, "teacher"), read_backbone(output, 6, "teacher"))
    assert not is_equal(read_backbone(output, 6, "teacher"), read_backbone(output, 7, "teacher"))
    norms = [module for network in (run.student, run.teacher) for module in network.modules()]
    assert all(norm.training for norm in norms if isinstance(norm, _BatchNorm))


def test_statistics_stay_for_the_whole_run_while_weights_move(images, tmp_path):
    train(adapt("resnet", images, tmp_path / "run", f"{SAVED} --freeze_batch_norm True"))
    pretrained = load_file(tmp_path / "resnet-pretrained" / "model.safetensors")
    for network in ("student", "teacher"):
        for key, tensor in read_backbone(tmp_path / "run", 6, network).items():
            stays = "running_" in key or key.endswith("num_batches_tracked")
            assert torch.equal(tensor, pretrained[key.removeprefix(PREFIX)]) == stays, key


@pytest.mark.slow
def test_another_run_starts_from_an_adapted_one(images, tmp_path):
    """Moments go by name, whatever groups the parameters were in."""
    train(adapt("dinov3_vit", images, tmp_path / "first"))
    first = tmp_path / "first" / "checkpoints" / "last" / "training_state" / "training.pt"
    crops = "--global_crop_size 64 --local_crop_sizes 32"
    for decay in (0.5, 1.0):
        started = f"--init_from {tmp_path / 'first'} --freeze_backbone_epochs 1 --layer_decay {decay}"
        run = Pretraining(parse_options(tiny(images, tmp_path / f"second-{decay}", started, crops)))
        with run.session:
            state, saved = (
                run.optimizer.state_dict()["state"],
                torch.load(first, weights_only=True)["optimizer"]["state"],
            )
        assert state.keys() == saved.keys() and len(state) > 20
        assert all(torch.equal(moments["exp_avg"], saved[number]["exp_avg"]) for number, moments in state.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov2_with_registers", "resnet"])
def test_two_processes_equal_one(name, images, tmp_path):
    """Also where processes accumulate, and gradients of the frozen backbone are not used."""
    train(adapt(name, images, tmp_path / "one", SAVED))
    halves = adapt(name, images, tmp_path / "two", f"{SAVED} --batch_size 2 --gradient_accumulation_steps 2")
    run_program([*torchrun(2), "training/pretrain.py", *halves])
    if name != "resnet":  # accumulated batches have statistics of their own
        assert read_losses(tmp_path / "two") == pytest.approx(read_losses(tmp_path / "one"), rel=1e-4)
    for network in ("student", "teacher"):
        first, frozen, last = (read_backbone(tmp_path / "two", step, network) for step in (1, 3, 4))
        assert is_equal(first, frozen) and not is_equal(frozen, last)


@pytest.mark.parametrize(
    "given, message",
    [
        ("--freeze_backbone_epochs 2", "freeze_backbone_epochs is 2, but must lie between 0 and epochs - 1"),
        ("--freeze_backbone_epochs -1", "freeze_backbone_epochs is -1"),
        ("--freeze_backbone_epochs 1", "freeze_backbone_epochs 1 would keep random weights"),
        ("--freeze_backbone_epochs 1 --init_from a/b --first_epoch 1", "the run begins at first_epoch 1: leave it out"),
        ("--freeze_batch_norm", "freeze_batch_norm would keep statistics of nothing"),
        ("--layer_decay 0", r"layer_decay must lie in \(0, 1\], got 0.0; 1.0 is off"),
        ("--layer_decay 1.1", "layer_decay must lie in"),
        ("--layer_decay nan", "layer_decay must lie in"),
    ],
)
def test_refused(given, message, images, tmp_path):
    with pytest.raises(OptionError, match=message):
        parse_options(tiny(images, tmp_path, given))
