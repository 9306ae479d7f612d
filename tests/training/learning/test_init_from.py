# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what `--init_from` takes from runs, models and converted checkpoints, what is new, and what it refuses."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_esvit import EsViTForPreTraining, EsViTModel
from modeling_esvit.convert_original.converter import convert
from modeling_esvit.storage.manifest import MANIFEST
from tests.helpers.commands import run_program, torchrun
from tests.helpers.paths import FIXTURES
from tests.helpers.tiny_runs import CROPS, HEADS, MEANS, flip_bit, read_losses, tiny, train
from training.learning.init_from import InitialisationError, find_origin, initialise, list_optimized_names
from training.learning.networks import build_networks
from training.learning.optimizer import group_parameters
from training.options.pretrain_options import parse_options
from training.pretrain import main
from training.state.checkpoints import ResumeError


CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def view_run(images, tmp_path_factory) -> Path:
    """Trains the view task for 3 steps, and saves after the second and the third."""
    output = tmp_path_factory.mktemp("view") / "run"
    train(tiny(images, output, "--task view --max_steps 3 --save_every 1"))
    return output


def networks_of(images: Path, changes: str = ""):
    """Returns student, teacher and optimizer of a run that has not begun, with weights that no other run has."""
    torch.manual_seed(7)
    options = parse_options(tiny(images, Path("unused"), changes))
    student, teacher = build_networks(options, CPU)
    return student, teacher, torch.optim.AdamW(group_parameters(student), lr=0.0)


def assert_loaded(model: EsViTForPreTraining, folder: Path, prefixes: tuple[str, ...]) -> None:
    expected = {name: t for name, t in load_file(folder / "model.safetensors").items() if name.startswith(prefixes)}
    assert expected
    for name, tensor in expected.items():
        assert torch.equal(model.state_dict()[name], tensor), name


VIEW = ("esvit.", "view_")


def test_a_view_run_continues_with_regions(images, view_run):
    student, teacher, optimizer = networks_of(images)
    fresh = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    report = initialise(str(view_run), student, teacher, optimizer)
    newest = view_run / "checkpoints" / "step-00000003"
    assert_loaded(student, newest / "student", VIEW)
    assert_loaded(teacher, newest / "teacher", VIEW)
    assert not torch.equal(student.view_head.mlp[0].weight, teacher.view_head.mlp[0].weight)
    assert teacher.view_center.abs().max() > 0
    for name, tensor in teacher.state_dict().items():
        if name.startswith("region_"):
            assert torch.equal(tensor, fresh[name]) and torch.equal(tensor, student.state_dict()[name])
    assert "region head and centre: new, because there is none" in report and "view head and centre: kept" in report
    assert "student and teacher each from its own" in report and "step-00000003" in report


def test_moments_follow_the_names(images, view_run):
    student, teacher, optimizer = networks_of(images)
    report = initialise(str(view_run), student, teacher, optimizer)
    state = view_run / "checkpoints" / "step-00000003" / "training_state" / "training.pt"
    saved = torch.load(state, weights_only=True)["optimizer"]["state"]
    theirs = list_optimized_names(networks_of(images, "--task view")[0])
    parameters = dict(student.named_parameters())
    for number, state in saved.items():
        ours = optimizer.state[parameters[theirs[number]]]
        assert torch.equal(ours["exp_avg"], state["exp_avg"]) and torch.equal(ours["exp_avg_sq"], state["exp_avg_sq"])
        assert ours["step"] == 3
    assert len(optimizer.state) == len(saved) == len(theirs)
    assert not any(name.startswith("region_head") and parameters[name] in optimizer.state for name in parameters)
    assert f"kept for {len(theirs)} of {len(list_optimized_names(student))} parameters" in report


def test_one_checkpoint_of_a_run(images, view_run):
    assert find_origin(str(view_run / "checkpoints" / "step-00000002")).student.endswith("step-00000002/student")


@pytest.mark.slow
def test_a_run_starts_from_a_run_and_is_resumed_without_it(images, view_run, tmp_path, capsys):
    source = shutil.copytree(view_run, tmp_path / "source")
    start = f"--init_from {source} --warmup_epochs 0"
    train(tiny(images, tmp_path / "whole", start))
    assert capsys.readouterr().out.count("Starting from") == 1
    train(tiny(images, tmp_path / "parts", f"{start} --max_steps 2"))
    shutil.rmtree(source)
    capsys.readouterr()
    train(tiny(images, tmp_path / "parts", start))
    printed = capsys.readouterr().out
    assert "Continuing from" in printed and "Starting from" not in printed
    assert read_losses(tmp_path / "parts") == read_losses(tmp_path / "whole")
    with pytest.raises(ResumeError, match="init_from was '.*' and is None"):
        train(tiny(images, tmp_path / "parts", "--warmup_epochs 0"))


@pytest.mark.slow
def test_two_processes_start_alike(images, view_run, tmp_path):
    changes = f"--init_from {view_run} --warmup_epochs 0 --drop_path_rate 0"
    train(tiny(images, tmp_path / "one", changes))
    run_program([*torchrun(2), "training/pretrain.py", *tiny(images, tmp_path / "two", f"{changes} --batch_size 4")])
    assert read_losses(tmp_path / "two") == pytest.approx(read_losses(tmp_path / "one"), rel=1e-5)


@pytest.mark.slow
def test_a_model_on_the_hub(images, view_run, tmp_path):
    """Reads the model from the cache that a download fills."""
    cached = tmp_path / "cache" / "models--org--name"
    shutil.copytree(view_run / "teacher", cached / "snapshots" / "0")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0")
    hub = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    arguments = tiny(images, tmp_path / "run", "--init_from org/name --task view --max_steps 1")
    printed = run_program(["python", "training/pretrain.py", *arguments], **hub).stdout
    assert "Starting from org/name, student and teacher alike." in printed and "view head and centre: kept" in printed


def test_a_model_folder(images, view_run):
    student, teacher, optimizer = networks_of(images, "--task view")
    report = initialise(str(view_run / "teacher"), student, teacher, optimizer)
    for model in (student, teacher):
        assert_loaded(model, view_run / "teacher", VIEW)
    assert not optimizer.state and "AdamW moments: new" in report and "student and teacher alike" in report


def test_the_network_is_that_of_the_model(images, view_run, tmp_path):
    """Takes the network from the model, without options for it except for the heads; a given option still counts."""
    options = f"--data {images} --output {tmp_path / 'run'} --init_from {view_run} {HEADS} {CROPS} --max_steps 1"
    student, _ = build_networks(parse_options(options.split()), CPU)
    saved = EsViTForPreTraining.from_pretrained(view_run / "teacher").config
    assert (student.config.depths, student.config.image_size) == ([2, 1], 32) == (saved.depths, saved.image_size)
    assert student.config.region_head and not saved.region_head
    assert main([*options.split(), *MEANS.split(), "--batch_size", "8"]) is None
    with pytest.raises(InitialisationError, match="does not fit"):
        initialise(str(view_run), *networks_of(images, f"--init_from {view_run} --window_size 2"))


def test_a_backbone_alone(images, view_run, tmp_path):
    EsViTModel.from_pretrained(view_run / "teacher").save_pretrained(tmp_path / "backbone")
    student, teacher, optimizer = networks_of(images)
    fresh = student.view_head.mlp[0].weight.clone()
    report = initialise(str(tmp_path / "backbone"), student, teacher, optimizer)
    assert_loaded(student, view_run / "teacher", ("esvit.",))
    assert torch.equal(student.view_head.mlp[0].weight, fresh) and torch.equal(teacher.view_head.mlp[0].weight, fresh)
    assert "view head and centre: new, because there is none" in report


def test_heads_of_another_size_are_new(images, view_run):
    student, teacher, optimizer = networks_of(images, "--task view --num_prototypes 16")
    report = initialise(str(view_run), student, teacher, optimizer)
    assert "view head and centre: new, because view_center is [32] there and [16] here" in report
    assert not teacher.view_center.any() and torch.equal(student.view_head.mlp[0].bias, teacher.view_head.mlp[0].bias)
    parameters = dict(student.named_parameters())
    with_moments = {name for name in parameters if parameters[name] in optimizer.state}
    assert with_moments == {name for name in parameters if name.startswith("esvit.")}


def test_a_region_head_is_left_out_where_the_task_is_view(images, view_run, tmp_path):
    both = networks_of(images)[0]
    both.save_pretrained(tmp_path / "both")
    student, teacher, optimizer = networks_of(images, "--task view")
    report = initialise(str(tmp_path / "both"), student, teacher, optimizer)
    assert "region head and centre: left out" in report and "view head and centre: kept" in report


def test_trained_norms_can_be_fixed(images, view_run):
    student, teacher, optimizer = networks_of(images, "--task view --norm_last_layer true")
    report = initialise(str(view_run), student, teacher, optimizer)
    norms = student.view_head.last_layer.weight_g
    assert not norms.requires_grad and (norms != 1).any()
    assert "norms of prototypes: as they were trained, fixed from now on" in report


def test_a_converted_checkpoint(images, tmp_path):
    """Converts the miniature in the original's layout, and reads its shape from the folder that is written."""
    folder = tmp_path / "converted"
    config = convert(FIXTURES / "checkpoint_swin_tiny.pth", folder).config
    network = (
        f"--image_size {config.image_size} --patch_size {config.patch_size} --window_size {config.window_size} "
        f"--embed_dim {config.embed_dim} --depths {' '.join(map(str, config.depths))} "
        f"--num_heads {' '.join(map(str, config.num_heads))} --num_prototypes {config.num_prototypes} "
        f"--head_hidden_size {config.head_hidden_size} --head_bottleneck_size {config.head_bottleneck_size} "
        f"--task {'view+region' if config.region_head else 'view'}"
    )
    student, teacher, optimizer = networks_of(images, network)
    report = initialise(str(folder), student, teacher, optimizer)
    assert "view head and centre: kept" in report and report.count(": new") == 1  # the moments
    for model in (student, teacher):
        assert_loaded(model, folder, ("esvit.", "view_", "region_"))


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, message",
    [
        ("--embed_dim 16", "esvit.encoder.patch_embed.proj.weight is [8, 3, 4, 4] there and [16, 3, 4, 4] here"),
        ("--depths 2 2", "esvit.encoder.layers.1.blocks.1.norm1.weight is missing there and [16] here"),
        ("--num_heads 2 2", "relative_position_bias_table is [49, 1] there and [49, 2] here"),
        (
            "--image_size 64",
            "window and shift of each stage (image_size) is [(4, 2), (4, 0)] there and [(4, 2), (4, 2)]",
        ),
    ],
)
def test_another_backbone_is_refused(images, view_run, changes, message):
    student, teacher, optimizer = networks_of(images, changes)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    with pytest.raises(InitialisationError, match=re.escape(message)):
        initialise(str(view_run), student, teacher, optimizer)
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_what_is_nothing_to_start_from(images, view_run, tmp_path):
    empty = tmp_path / "empty"
    (empty / "checkpoints" / "step-00000001").mkdir(parents=True)
    native = tmp_path / "native"
    native.mkdir()
    (native / "config.json").write_text('{"model_type": "swin"}')
    led = tmp_path / "led_elsewhere"
    led.mkdir()
    fields = '{"model_type": "esvit", "architecture": "auto", "backbone_config": "/home/ada"}'
    (led / "config.json").write_text(fields)
    (indexed := tmp_path / "indexed").mkdir()
    (indexed / "config.json").write_text('{"model_type": "esvit"}')
    (indexed / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../private.safetensors"}}')
    checkpoint = FIXTURES / "checkpoint_swin_tiny.pth"
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "options.yaml").touch()
    for source, message in [
        (tmp_path / "begun", "the run has not saved one yet; it does so with its first checkpoint"),
        (empty, "neither the folder of a model .* nor that of a run"),
        (checkpoint, "convert_original .*checkpoint_swin_tiny.pth FOLDER"),
        (native, "type 'swin', not 'esvit'. Convert the original checkpoint without --native"),
        (led, "backbone_config in its config.json names /home/ada, which is no part of the model"),
        (indexed, "names ../private.safetensors, which is no file of the model"),
        ("nowhere", "'nowhere' does not exist"),
    ]:
        with pytest.raises(InitialisationError, match=message):
            initialise(str(source), *networks_of(images))


@pytest.mark.parametrize(
    "file", ["student/model.safetensors", "teacher/model.safetensors", "training_state/training.pt"]
)
@pytest.mark.parametrize("content", [b"", b"{}", b"x" * 100])
def test_damaged_files_are_named(images, view_run, tmp_path, caplog, file, content):
    run = shutil.copytree(view_run, tmp_path / "run", symlinks=True)
    *older, newest = sorted((run / "checkpoints").glob("step-*"))
    (newest / file).write_bytes(content)
    assert find_origin(str(run)).student == str(older[-1] / "student")
    assert f"{newest} is damaged and not used: {file} is not as it was written" in caplog.text
    for checkpoint in older:
        (checkpoint / file).write_bytes(content)
    with pytest.raises(InitialisationError, match=f"are damaged, as step-00000003: {file} is not as it was"):
        initialise(str(run), *networks_of(images))


@pytest.mark.parametrize("model", ["teacher", "checkpoints/last/teacher"])
def test_a_damaged_model_of_a_run_is_named(images, view_run, tmp_path, model):
    run = shutil.copytree(view_run, tmp_path / "run", symlinks=True)
    flip_bit(run / model / "model.safetensors")
    with pytest.raises(
        InitialisationError, match=r"damaged or was changed: .*model\.safetensors is not as it was written"
    ):
        initialise(str(run / model), *networks_of(images))


def test_a_file_that_contradicts_its_configuration_is_refused(images, view_run, tmp_path):
    folder = shutil.copytree(view_run / "teacher", tmp_path / "model", ignore=shutil.ignore_patterns(MANIFEST))
    tensors = load_file(folder / "model.safetensors")
    tensors["esvit.encoder.norm.weight"] = torch.ones(3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InitialisationError, match=r"norm\.weight is missing there and \[16\] here"):
        initialise(str(folder), *networks_of(images, "--task view"))


def test_pickled_weights_are_not_read(images, view_run, tmp_path):
    folder = shutil.copytree(view_run / "teacher", tmp_path / "model", ignore=shutil.ignore_patterns(MANIFEST))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InitialisationError, match="model.safetensors"):
        initialise(str(folder), *networks_of(images, "--task view"))


def test_the_command_prints_the_message_alone(images, tmp_path):
    with pytest.raises(SystemExit, match="^error: init_from 'nowhere' does not exist"):
        main(tiny(images, tmp_path / "run", "--init_from nowhere"))
    assert not (tmp_path / "run").exists()
