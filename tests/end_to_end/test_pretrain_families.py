# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Pretrains a small model of every family: steps, exact resume, skipped steps, running statistics, several processes.

The Swin's runs, the same and more, are in `tests/programs/test_pretrain.py`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModel, pipeline

from modeling_esvit import EsViTArchitectureError, EsViTConfig, EsViTForPreTraining, EsViTModel
from modeling_esvit.vil_attention import EsViTViLSparseAttention
from tests.helpers.commands import run_program, torchrun
from tests.helpers.tiny_models import BACKBONES
from tests.helpers.tiny_runs import (
    assert_equal_weights,
    read_log,
    read_losses,
    read_weights,
    tiny,
    tiny_auto,
    train,
)
from training.learning.networks import build_networks
from training.options.errors import OptionError
from training.options.pretrain_options import PretrainOptions, parse_options
from training.pretrain import Pretraining


CROPS = "--global_crop_size 64 --local_crop_sizes 32"
SWITCHED = "--drop_path_rate 0.3 --vil_mode_switch 0.5"  # at the second of two epochs of three steps
PP_LCNET = {"model_type": "pp_lcnet"}  # transformers can recompute its blocks, and they have BatchNorms


@dataclass(frozen=True)
class Family:
    """Holds what one family differs in: the options of its network, and what must be true of the result."""

    network: str
    config: dict = field(default_factory=dict)  # values that the trained model's configuration must have
    width: int | None = None  # of the view feature
    averages: bool = True  # the view feature is the mean over the regions
    pixels: tuple[int, int] = (64, 64)  # of an image whose features are compared
    regions: int | None = None  # of such an image
    unchanged: tuple[str, ...] = ()  # ends of names of tensors in the encoder that steps leave as they are


UNCHANGED = {
    "focalnet": ("layernorm.weight", "layernorm.bias"),  # no forward pass uses them, nor the mask token
    "dinov2": ("mask_token",),
    # Its windows have four tokens or one there, which hardly differ: rounding leaves these as they were.
    "swinv2": tuple(f"layers.3.blocks.0.attention.self.{n}.bias" for n in ("query", "continuous_position_bias_mlp.0")),
}
FAMILIES = {
    "cvt": Family(
        "--architecture cvt-tiny --embed_dim 8 --stage_dims 8 16 24 32 --depths 1 1 1 1 "
        f"--num_heads 1 2 2 4 --window_size 3 {CROPS}",
        {"architecture": "cvt", "hidden_act": "quick_gelu"},
        width=32,
    ),
    "vil": Family(
        "--architecture vil-tiny --image_size 64 --embed_dim 8 --depths 1 1 2 1 --num_heads 1 1 2 2 --window_size 3 "
        f"{CROPS} --vil_mode 1",
        {"architecture": "vil", "vil_mode": 1},
        width=64,
    ),
    "vil positions": Family(
        f"--architecture l1,h1,d8,p4,f3_l2,h1,d16,g0,f3,a0_l3,h2,d32,s0,f3_l4,h2,d64,s0,g0,f3 --image_size 64 {CROPS}",
        {"architecture": "vil", "absolute_positions": [1, 0, 1, 1]},
        width=64,
    ),
    "vit": Family(
        "--architecture deit-tiny --patch_size 8 --image_size 32 --embed_dim 16 --depths 3 --num_heads 2",
        {"architecture": "vit"},
        width=16,
        averages=False,  # it is the class token
        pixels=(40, 56),
        regions=5 * 7,
    ),
    **{name: Family("", {"architecture": "auto"}, unchanged=UNCHANGED.get(name, ())) for name in BACKBONES},
}
FAST = ("cvt", "vil", "vil positions", "vit", "resnet", "dinov2", "pvt")
WITH_STATISTICS = {"cvt": 4, "resnet": 17}  # and the number of their BatchNorms


def mark(name: str, *others, slow: bool = False):
    """Returns a parameter set of a family, marked as slow if it is, or the family is not one of the fast ones."""
    return pytest.param(name, *others, marks=pytest.mark.slow if slow or name not in FAST else ())


def arguments(name: str, images: Path, output: Path, changes: str = "") -> list[str]:
    """Returns the arguments of a run of 2 epochs x 3 steps of a family."""
    if name in BACKBONES:
        return tiny_auto(images, output, BACKBONES[name], changes)
    return tiny(images, output, changes, FAMILIES[name].network)


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory) -> Callable[[str, str], Path]:
    """Returns a function that trains a family for six steps, once for each set of options, and returns the folder."""

    @cache
    def train_whole(name: str, changes: str = "") -> Path:
        output = tmp_path_factory.mktemp(name) / "whole"
        train(arguments(name, images, output, f"{changes} --save_every 1 --keep_checkpoints 6"))
        return output

    return train_whole


# -- every family ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, changes",
    [*(mark(name, "") for name in FAMILIES), ("vit", "--gradient_checkpointing"), ("vit", "--task view")],
)
def test_three_steps_and_all_that_is_done_with_the_result(name, changes, images, tmp_path):
    """Steps change every tensor; what was saved loads in every way and gives the teacher's features."""
    family, output = FAMILIES[name], tmp_path / "run"
    only_built_size = "--local_crop_sizes 64" if name == "hiera" else ""
    steps = f"--max_steps 3 --save_every 1 --keep_checkpoints 3 {only_built_size}"
    run = train(arguments(name, images, output, f"{steps} {changes}"))
    log = read_log(output)
    assert [record["step"] for record in log] == [1, 2, 3]
    assert all(torch.tensor([record["loss"], record["view_loss"]]).isfinite().all() for record in log)
    assert all(record["view_loss"] > 0 and (record["region_loss"] > 0) == ("view" not in changes) for record in log)
    for network, first in (("student", 1), ("teacher", 1), ("student", 2)):
        before, after = (read_weights(output, step, network) for step in (first, 3))
        moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
        expected = [key for key in before if ".encoder." in key and not key.endswith(family.unchanged)]
        assert expected and not [key for key in expected if key not in moved]
        assert "view_head.mlp.0.weight" in moved and ("region_head.mlp.0.weight" in moved) == ("view" not in changes)
    trained = EsViTForPreTraining.from_pretrained(output / "teacher").eval()
    assert {key: getattr(trained.config, key) for key in family.config} == family.config
    assert_gives_features(output / "teacher", run, family, Image.open(next(images.iterdir())))


def assert_gives_features(folder: Path, run: Pretraining, family: Family, image: Image.Image) -> None:
    """Checks that the Auto class and the pipeline load the folder and give the teacher's features."""
    loaded, teacher = AutoModel.from_pretrained(folder).eval(), run.teacher.esvit.eval()
    width = family.width or loaded.config.hidden_size
    regions = family.regions or math.prod(loaded.config.region_grid(*family.pixels))
    pixels = torch.randn(2, 3, *family.pixels)
    with torch.no_grad():
        output, expected = loaded(pixels), teacher(pixels)
    torch.testing.assert_close(output.pooler_output, expected.pooler_output, rtol=1.3e-6, atol=1e-6)
    assert output.last_hidden_state.shape == (2, regions, width)
    mean = output.last_hidden_state.mean(dim=1)
    if family.averages:
        torch.testing.assert_close(output.pooler_output, mean)
    else:
        assert not torch.allclose(output.pooler_output, mean)
    features = pipeline("image-feature-extraction", model=str(folder))(image, pool=True, return_tensors=True)
    assert features.shape == (1, width) and features.isfinite().all() and loaded.config.hidden_size == width


@pytest.mark.parametrize(
    "name, changes, stop", [("cvt", "", 4), mark("vit", "", 4, slow=True), mark("dinov2", "--task view", 4, slow=True)]
)
def test_a_stopped_run_continues_exactly(name, changes, stop, images, whole, tmp_path):
    train(arguments(name, images, tmp_path / "run", f"{changes} --max_steps {stop}"))
    train(arguments(name, images, tmp_path / "run", changes))
    assert read_losses(tmp_path / "run") == read_losses(whole(name, changes))
    assert_equal_weights(tmp_path / "run" / "teacher", whole(name, changes) / "teacher")


@pytest.mark.parametrize(
    "name, changes, limit", [("cvt", "", 1e-4), ("vit", "", 1e-5), mark("vil", SWITCHED, 1e-5, slow=True)]
)
def test_recomputation_gives_the_same_run(name, changes, limit, images, whole, tmp_path):
    """Chunks that a ViL draws and statistics that a BatchNorm gathers included."""
    given = f"{changes} --gradient_checkpointing True --save_every 1 --keep_checkpoints 6"
    train(arguments(name, images, tmp_path / "run", given))
    assert read_losses(tmp_path / "run") == pytest.approx(read_losses(whole(name, changes)), rel=limit)
    ours, theirs = (read_weights(output, 6, "student") for output in (tmp_path / "run", whole(name, changes)))
    for key in filter(is_statistic, ours):
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-2, atol=1e-3)


# -- running statistics ------------------------------------------------------------------------------------------------


def is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


class PoisonedPretraining(Pretraining):
    """Trains on images of which one pixel of the third step's is not a number."""

    def train_step(self, batches, step):
        if step == 2:
            batches[0].groups[0][0, 0, 0, 0] = float("nan")
        return super().train_step(batches, step)


@pytest.fixture(scope="module")
def poisoned(images, tmp_path_factory) -> Callable[[str], Path]:
    """Returns a function that trains a family for three steps, of which the third is skipped."""

    @cache
    def train_poisoned(name: str) -> Path:
        output = tmp_path_factory.mktemp(name) / "poisoned"
        train(arguments(name, images, output, "--max_steps 3 --save_every 1 --keep_checkpoints 3"), PoisonedPretraining)
        return output

    return train_poisoned


@pytest.mark.parametrize("name, norms", WITH_STATISTICS.items())
@pytest.mark.parametrize("skips", [False, True])
def test_the_teacher_has_statistics_of_its_own(name, norms, skips, whole, poisoned):
    """It gathers them in its own passes, one a step over global crops; the student sees crops of two sizes."""
    output, last, steps = (poisoned(name), 3, 2) if skips else (whole(name), 6, 6)
    student, teacher = (read_weights(output, last, network) for network in ("student", "teacher"))
    counts = [key for key in teacher if key.endswith("num_batches_tracked")]
    assert len(counts) == norms
    for key in counts:
        assert (teacher[key], student[key]) == (steps, 2 * steps)
    statistics = [key for key in teacher if is_statistic(key) and key not in counts]
    assert len(statistics) == 2 * norms and not [key for key in statistics if torch.equal(teacher[key], student[key])]
    published = load_file(output / "teacher" / "model.safetensors")
    assert all(torch.equal(published[key], tensor) for key, tensor in teacher.items())


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_a_skipped_step_leaves_the_statistics_as_they_were(name, whole, poisoned):
    for network in ("student", "teacher"):
        before, after = (read_weights(poisoned(name), step, network) for step in (2, 3))
        assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
        assert all(torch.equal(before[key], tensor) for key, tensor in read_weights(whole(name), 2, network).items())


def test_the_teacher_is_an_average_of_parameters_alone(images, tmp_path):
    output = tmp_path / "run"
    run = train(arguments("resnet", images, output, "--max_steps 2 --save_every 1 --momentum_teacher 0.5"))
    momentum = run.plan.momentum[1]
    before, teacher, student = (
        read_weights(output, *which) for which in ((1, "teacher"), (2, "teacher"), (2, "student"))
    )
    for name, _ in run.teacher.named_parameters():
        torch.testing.assert_close(teacher[name], momentum * before[name] + (1 - momentum) * student[name], msg=name)


def test_blocks_with_batch_norm_are_not_recomputed(images, tmp_path):
    model = EsViTModel(EsViTConfig(architecture="auto", backbone_config=PP_LCNET))
    with pytest.raises(ValueError, match="EsViTModel does not support"):
        model.gradient_checkpointing_enable()
    with pytest.raises(OptionError, match="pp_lcnet, whose BatchNorms would count each batch twice"):
        Pretraining(parse_options(tiny_auto(images, tmp_path / "run", PP_LCNET, "--gradient_checkpointing")))


@pytest.mark.slow
@pytest.mark.parametrize("name, changes", [("cvt", "--drop_path_rate 0"), ("resnet", "")])
def test_two_processes_equal_one(name, changes, images, tmp_path):
    """With batches of half the size each: losses, and running statistics of both networks."""
    one, two = tmp_path / "one", tmp_path / "two"
    train(arguments(name, images, one, f"{changes} --max_steps 3"))
    halves = arguments(name, images, two, f"{changes} --max_steps 3 --batch_size 4")
    run_program([*torchrun(2), "training/pretrain.py", *halves])
    assert read_losses(two) == pytest.approx(read_losses(one), rel=1e-4)
    for network in ("student", "teacher"):
        expected, found = (read_weights(output, 3, network) for output in (one, two))
        for key in filter(is_statistic, expected):
            torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=1e-4)


# -- ViL: chunks that are drawn, and all of them from the switch on ----------------------------------------------------


def find_modes(run: Pretraining) -> set[int]:
    modules = [module for network in (run.student, run.teacher) for module in network.modules()]
    return {module.mode for module in modules if isinstance(module, EsViTViLSparseAttention)}


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 4])
def test_resume_draws_as_the_uninterrupted_run(stop, images, whole, tmp_path):
    """Chunks after the stop come from the restored generator; the switch, before or after it, from the epoch."""
    train(arguments("vil", images, tmp_path / "run", f"{SWITCHED} --max_steps {stop}"))
    continued = train(arguments("vil", images, tmp_path / "run", SWITCHED))
    assert find_modes(continued) == {0}
    assert read_losses(tmp_path / "run") == read_losses(whole("vil", SWITCHED))
    assert_equal_weights(tmp_path / "run" / "teacher", whole("vil", SWITCHED) / "teacher")


def test_the_switch_changes_the_mode_of_both_networks(images, tmp_path):
    run = Pretraining(parse_options(arguments("vil", images, tmp_path / "run", SWITCHED)))
    assert find_modes(run) == {1}
    run.run()
    assert find_modes(run) == {0}


@pytest.mark.slow
def test_modes_differ_until_the_switch(images, whole, tmp_path):
    """Drawn chunks, all chunks, and drawn ones to the end are three different runs."""
    drawn = read_losses(whole("vil", SWITCHED))
    train(arguments("vil", images, tmp_path / "all", f"{SWITCHED} --vil_mode 0"))
    never = train(arguments("vil", images, tmp_path / "never", "--drop_path_rate 0.3 --vil_mode_switch 1"))
    assert find_modes(never) == {1}
    assert read_losses(tmp_path / "all")[0] != drawn[0]
    losses = read_losses(tmp_path / "never")
    assert losses[:3] == drawn[:3] and losses[3:] != drawn[3:]


def test_the_mode_is_refused_for_other_architectures():
    with pytest.raises(EsViTArchitectureError, match="vil_mode is for a ViL; not for a Swin"):
        build_networks(PretrainOptions(vil_mode=1), torch.device("cpu"))
