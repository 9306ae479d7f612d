# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what the recipes say, and that each of them takes steps, here with small crops, networks and batches."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoBackbone, AutoConfig, AutoImageProcessor, AutoModel

from examples.photographs import write_photographs
from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.images.transform import make_evaluation_transform
from tests.helpers.tiny_models import DINO_V2
from tests.helpers.tiny_runs import read_log, train
from training.data.sources import open_source
from training.evaluation.knn import evaluate_knn
from training.learning.networks import build_config, build_networks
from training.learning.plan import make_plan
from training.options.pretrain_options import ABOUT_DATA, RECIPES, PretrainOptions, parse_options


NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
SWINS = [name for name in NAMES if name.startswith("swin")]
QUICK = ("adapt", "own_images_small", "swin_tiny_w7")  # other tests train their families
SECOND_STAGES = [name for name in NAMES if name.endswith("_region")]
SMALL = (
    "--image_size 64 --global_crop_size 64 --local_crop_sizes 32 --local_crops_numbers 2 --batch_size 2 "
    "--num_prototypes 32 --head_hidden_size 16 --head_bottleneck_size 8 "
    "--mixed_precision no --workers 0 --log_every 1 --tracker none --max_steps 2 --save_every 1"
)
NARROW = "--embed_dim 8 --num_heads 1 1 2 2"  # of the four stages of a Swin
NARROWED = {
    "cvt": "--embed_dim 8 --stage_dims 8 16 24 32 --depths 1 1 1 1 --num_heads 1 2 2 4",
    "demo": "",
    "own_images_small": "--embed_dim 8 --num_heads 1 2 2",
    "resnet50": "",
    "adapt": "--freeze_backbone_epochs 0 --gradient_accumulation_steps 1",
    "deit": "--embed_dim 8 --num_heads 1",
}


def run(recipe: str, images: Path, output: Path, changes: str = "") -> list[dict]:
    """Takes the first two steps of a recipe's schedules, and returns their log."""
    narrow = next((small for start, small in NARROWED.items() if recipe.startswith(start)), NARROW)
    paths = ["--recipe", recipe, "--data", str(images), "--output", str(output)]
    if recipe == "adapt":
        AutoBackbone.from_config(AutoConfig.for_model(**DINO_V2)).save_pretrained(output.with_name("backbone"))
        paths += ["--backbone", str(output.with_name("backbone"))]
    train([*paths, *f"{SMALL} {narrow} {changes}".split()])
    return read_log(output)


def weights(output: Path, step: int, network: str = "student") -> dict[str, torch.Tensor]:
    return load_file(output / "checkpoints" / f"step-{step:08d}" / network / "model.safetensors")


def assert_two_steps(recipe: str, output: Path, log: list[dict]) -> None:
    has_regions = parse_options(["--recipe", recipe]).task == "view+region"
    assert [record["step"] for record in log] == [1, 2]
    for record in log:
        assert math.isfinite(record["loss"]) and (record["region_loss"] > 0) == has_regions
    before, after = weights(output, 1), weights(output, 2)
    assert ("region_center" in after) == has_regions
    # Not the frozen prototypes; nor the ones in norms, which such a learning rate does not change in float32; nor
    # biases between global tokens, which lead nowhere in the last block of a stage.
    unused = ("last_layer", "g2g_", "mask_token")
    trained = [name for name in after if after[name].ndim > 1 and not any(part in name for part in unused)]
    assert len(trained) > 10 and not [name for name in trained if torch.equal(before[name], after[name])]


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in NAMES
        if name not in SECOND_STAGES
    ],
)
def test_two_steps(recipe, images, tmp_path):
    assert_two_steps(recipe, tmp_path / "run", run(recipe, images, tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", SECOND_STAGES)
def test_two_steps_of_both_stages(recipe, images, tmp_path, capsys):
    first = recipe.replace("_region", "_view")
    assert parse_options(["--recipe", recipe]).init_from == parse_options(["--recipe", first]).output
    run(first, images, tmp_path / "first")
    capsys.readouterr()
    log = run(recipe, images, tmp_path / "second", f"--init_from {tmp_path / 'first'} --first_epoch 0")
    assert_two_steps(recipe, tmp_path / "second", log)
    printed = capsys.readouterr().out
    assert "view head and centre: kept" in printed and "region head and centre: new" in printed
    assert "AdamW moments: kept for" in printed


@pytest.mark.slow
def test_a_small_batch_learns(tmp_path):
    """Downloads the demo's photographs; takes minutes."""
    data, output = tmp_path / "photographs", tmp_path / "run"
    write_photographs(data, patch_size=96, train_per_photograph=150, test_per_photograph=40, shards=2)
    paths = ["--recipe", "demo_small_batch", "--data", str(data), "--output", str(output)]
    train([*paths, "--tracker", "none"])
    untrained = build_networks(parse_options(paths), torch.device("cpu"))[1].esvit.eval()
    trained = AutoModel.from_pretrained(output / "teacher").eval()
    transform = make_evaluation_transform(AutoImageProcessor.from_pretrained(output / "teacher"))
    images = [open_source(str(data), split=split) for split in ("train", "test")]
    before, after = (evaluate_knn(model, transform, *images, k=[20])["k20_top1"] for model in (untrained, trained))
    assert after >= before + 0.1


# -- what they say -----------------------------------------------------------------------------------------------------


def test_the_reference_recipe_is_the_defaults():
    recipe = parse_options(["--recipe", "swin_tiny_w7"])
    assert set(PretrainOptions().differences(vars(recipe))) == {"exif_orientation", "mixed_precision", "window_size"}
    assert build_config(PretrainOptions()).to_dict() == build_config(recipe).to_dict()  # 7 is what a Swin has


# Of every published run (arXiv 2106.09785, section 4.1, and the options that the authors stored with their weights).
PUBLISHED = {
    **{
        "lr": 5e-4,
        "min_lr": 1e-6,
        "warmup_epochs": 10,
        "weight_decay": 0.04,
        "weight_decay_end": 0.4,
        "clip_grad": 3.0,
    },
    **{"momentum_teacher": 0.996, "center_momentum": 0.9, "student_temp": 0.1, "warmup_teacher_temp": 0.04},
    **{"teacher_temp": 0.07, "warmup_teacher_temp_epochs": 30, "freeze_last_layer": 1, "norm_last_layer": False},
    **{"num_prototypes": 65536, "head_hidden_size": 2048, "head_bottleneck_size": 256, "region_weight": 0.5},
    **{"global_crop_size": 224, "local_crop_sizes": [96], "local_crops_numbers": [8], "augmentation": "dino"},
    **{"global_crops_scale": [0.4, 1.0], "local_crops_scale": [0.05, 0.4], "mixed_precision": "fp16", "epochs": 300},
}
# What a second stage has beside them.
CONTINUED = {"first_epoch": 200}
# Images of a process, of which there were 16, and fields of the network.
RUNS = {
    "cvt_tiny": (64, {"stage_dims": [64, 192, 384, 768], "depths": [2, 2, 6, 2], "num_heads": [1, 3, 6, 12]}),
    "deit_small": (64, {"embed_dim": 384, "depths": [12], "num_heads": [6], "patch_size": 16}),
    "resnet50": (64, {"hidden_size": 2048}),
    "vil_tiny_region": (64, {"depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "vil_mode": 1}),
    "vil_tiny_view": (32, {"depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "vil_mode": 0}),
}


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("cvt", "deit", "resnet", "vil"))])
def test_published_values(name):
    options = parse_options(["--recipe", name])
    expected = {**PUBLISHED, **(CONTINUED if name.endswith("_region") else {})}
    assert {key: getattr(options, key) for key in expected} == expected
    batch, fields = next(run for start, run in RUNS.items() if name.startswith(start))
    assert (options.batch_size, options.gradient_accumulation_steps) == (batch, 1)
    config = build_config(options)
    assert {key: getattr(config, key) for key in fields} == fields
    assert name.startswith("resnet") or config.drop_path_rate == 0.1
    said = (RECIPES / f"{name}.yaml").read_text().splitlines()
    assert any(f"{16 * batch}" in line and f"16 processes of {batch}" in line for line in said)


@pytest.mark.parametrize("name", SWINS)
def test_recipes_of_swins(name):
    options = parse_options(["--recipe", name])
    _, size, window, *_ = name.split("_")
    assert (options.architecture, options.window_size) == (f"swin-{size}", int(window[1:]))


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(("adapt", "demo", "own_images"))])
def test_recipes_of_imagenet(name):
    options = parse_options(["--recipe", name])
    assert name.replace("_", "").startswith(options.architecture.replace("-", ""))
    assert (options.data, options.streaming) == ("ILSVRC/imagenet-1k", True)
    assert options.output == f"runs/{name}"
    assert (options.task == "view") == name.endswith("_view")


def original_cosine(base: float, final: float, epochs: int, steps: int, warmup_epochs: int = 0) -> np.ndarray:
    """Computes the schedule by the original's formula: a warm-up from 0, then half a cosine, value by value."""
    warmup = np.linspace(0, base, warmup_epochs * steps) if warmup_epochs else np.array([])
    rest = epochs * steps - warmup_epochs * steps
    cosine = [final + 0.5 * (base - final) * (1 + math.cos(math.pi * i / rest)) for i in range(rest)]
    return np.concatenate([warmup, cosine])


@pytest.mark.parametrize("name", SECOND_STAGES)
def test_the_second_stage_goes_on_in_the_schedules_of_the_first(name):
    """With 16 processes: each step has the values that the original's 300 epochs have there, to the last digits."""
    first, second = (parse_options(["--recipe", recipe]) for recipe in (name.replace("_region", "_view"), name))
    done, steps = second.first_epoch, 1251 if name.startswith(("resnet50", "cvt")) else 2502
    assert done in (180, 200) and second.init_from == first.output
    assert f"--max_steps {done * steps}" in (RECIPES / f"{name.replace('_region', '_view')}.yaml").read_text()
    batch = 16 * second.batch_size
    images = steps * batch + 7
    plan = make_plan(second, images, world_size=16)
    assert (plan.first_step, plan.last_step, plan.steps_per_epoch) == (done * steps, 300 * steps, steps)
    lr = original_cosine(5e-4 * batch / 256, 1e-6, 300, steps, warmup_epochs=10)
    decay, momentum = original_cosine(0.04, 0.4, 300, steps), original_cosine(0.996, 1.0, 300, steps)
    for ours, original in ((plan.lr, lr), (plan.weight_decay, decay), (plan.momentum, momentum)):
        np.testing.assert_allclose(ours[plan.first_step :], original[plan.first_step :], rtol=1e-13)
    assert set(plan.teacher_temp[done:]) == {0.07} and second.freeze_last_layer <= done


@pytest.mark.parametrize(
    "small, reference, batch", [("swin_tiny_w7_single_gpu", "swin_tiny_w7", 512), ("demo_small_batch", "demo", 32)]
)
def test_small_batches_follow_the_scaling_rule(small, reference, batch):
    ours, theirs = (parse_options(["--recipe", name]) for name in (small, reference))
    share = ours.batch_size * ours.gradient_accumulation_steps / batch
    assert share == 1 / 4
    for name in ("momentum_teacher", "center_momentum"):
        assert 1 - getattr(ours, name) == pytest.approx(1 - getattr(theirs, name) ** share, rel=5e-3)
    scaled = {"batch_size", "gradient_accumulation_steps", "momentum_teacher", "center_momentum", "mixed_precision"}
    assert set(ours.differences(vars(theirs))) <= scaled


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("own_images")])
def test_recipes_for_own_images_ask_for_them(name):
    with pytest.raises(DataOptionError, match="Give --data: your folder of images"):
        open_source(parse_options(["--recipe", name]).data)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("own_images")])
def test_recipes_for_own_images_match_by_location(name):
    ours, paper = (parse_options(["--recipe", recipe]) for recipe in (name, "swin_tiny_w7"))
    assert ours.region_matching == "location"
    assert ours.num_prototypes < paper.num_prototypes
    if name != "own_images_small":
        share = ours.batch_size / 512
        for momentum in ("momentum_teacher", "center_momentum"):
            scaled = getattr(paper, momentum) ** share
            assert 1 - getattr(ours, momentum) == pytest.approx(1 - scaled, rel=2e-2)


def test_data_on_the_command_line_replaces_that_of_the_recipe(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    about = {
        "data": "a/b",
        "split": "s",
        "revision": "r",
        "config_name": "n",
        "image_column": "c",
        "label_column": "l",
        "streaming": True,
        "samples_per_epoch": 5,
        "white_level": 4095.0,
        "allow_paths": True,
    }
    recipe.write_text(yaml.safe_dump({**about, "epochs": 50, "knn_every": 1, "knn_test": "t"}))
    assert set(about) == set(ABOUT_DATA)
    from_recipe = parse_options(["--recipe", str(recipe)])
    assert {name: getattr(from_recipe, name) for name in about} == about
    for data in (["--data", "folder"], ["--data=folder"]):
        options = parse_options(["--recipe", str(recipe), *data, "--split", "mine"])
        assert {name: getattr(options, name) for name in about} == {
            **{name: getattr(PretrainOptions(data="folder"), name) for name in about},
            "split": "mine",
        }
        assert options.epochs == 50
