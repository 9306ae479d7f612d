# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the folder that is published: complete, loadable by every class, silent about the machine it was made on."""

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from transformers import AutoModel, AutoModelForPreTraining, SwinModel

from modeling_esvit import EsViTForPreTraining, EsViTModel
from modeling_esvit.storage.manifest import MANIFEST, list_names
from modeling_esvit.storage.weights_record import RECORD, read_weights_record
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import CODE, save_with_heads, small_config
from tests.hub.uploads import card_problems
from training.learning.init_from import initialise
from training.learning.optimizer import group_parameters
from training.options.pretrain_options import parse_options
from training.publish import main
from training.publishing.folder import CURVES, HEADS, OPTIONS, list_files


def test_files_of_a_run(published):
    own = [HEADS, OPTIONS, CURVES, RECORD, "README.md", "model.safetensors.index.pretraining.json"]
    saved = ["config.json", "model.safetensors", "preprocessor_config.json", *CODE]
    assert list(list_files(published)) == sorted([*own, *saved]) == list_names(published)
    assert (published / MANIFEST).is_file()  # the record of these files, which stays here
    page = (ROOT / "training" / "README.md").read_text().partition("One commit holds these files:")[2]
    listed = re.findall(r"^\| `(.*?)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted([*own, *(name for name in saved if name not in CODE), "*.py"])
    with safe_open(published / "model.safetensors", "pt") as weights:
        assert all(name.startswith("encoder.") for name in weights.keys())
    with safe_open(published / HEADS, "pt") as weights:
        assert {name.split(".")[0] for name in weights.keys()} == {
            "view_head",
            "region_head",
            "view_center",
            "region_center",
        }
    assert (published / CURVES).read_bytes().startswith(b"\x89PNG")


def test_it_loads_as_backbone_and_with_heads(run, published):
    source = EsViTForPreTraining.from_pretrained(run / "teacher")
    backbone, report = AutoModel.from_pretrained(published, output_loading_info=True)
    assert type(backbone) is EsViTModel and not any(report.values())
    model, report = AutoModelForPreTraining.from_pretrained(published, output_loading_info=True)
    assert type(model) is EsViTForPreTraining and not any(report.values())
    assert model.view_center.abs().max() > 0
    for name, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
        if name.startswith("esvit."):
            assert torch.equal(backbone.state_dict()[name.removeprefix("esvit.")], tensor)


def test_pretraining_goes_on_from_it(run, published):
    torch.manual_seed(7)
    source = EsViTForPreTraining.from_pretrained(run / "teacher")
    student, teacher = (EsViTForPreTraining(source.config) for _ in range(2))
    report = initialise(str(published), student, teacher, torch.optim.AdamW(group_parameters(student), lr=0.0))
    assert "view head and centre: kept" in report and "region head and centre: kept" in report
    assert all(torch.equal(teacher.state_dict()[name], tensor) for name, tensor in source.state_dict().items())


def test_a_saved_copy_is_one_file_again(published, tmp_path):
    model = EsViTForPreTraining.from_pretrained(published)
    model.save_pretrained(tmp_path)
    again = EsViTForPreTraining.from_pretrained(tmp_path)
    assert not (tmp_path / HEADS).exists()
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_options_tell_nothing_of_the_machine(run, published):
    assert not any(b"secret_place" in path.read_bytes() for path in published.iterdir())
    options = yaml.safe_load((published / OPTIONS).read_text())
    assert options["data"] == "a folder of images" and options["embed_dim"] == 8 and "output" not in options
    again = parse_options(["--recipe", str(published / OPTIONS), "--data", "mine", "--output", "again"])
    saved = yaml.safe_load((run / "options.yaml").read_text())
    different = again.differences(saved)
    assert set(different) == {"data"}


def test_publishing_is_repeatable(run, published):
    """Writes the same bytes again, so that nothing is sent to the Hub twice."""
    before = {path.name: path.read_bytes() for path in published.iterdir()}
    main([str(run), "--repo_id", "ada/tiny", "--dry_run"])
    assert before == {path.name: path.read_bytes() for path in published.iterdir()}


def test_publication_can_be_published_again(published, tmp_path):
    """Takes a published folder as the source, and writes the same weights and heads."""
    folder = shutil.copytree(published, tmp_path / "copy")
    main([str(folder), "--repo_id", "ada/again", "--dry_run"])
    for name in ("model.safetensors", HEADS, RECORD):
        assert (tmp_path / "copy-hub" / name).read_bytes() == (published / name).read_bytes()
    record, text = read_weights_record(folder), (tmp_path / "copy-hub" / "README.md").read_text()
    assert record and record.training == (
        "without labels on a folder of images (task view+region), starting from random weights"
    )
    assert f"The weights were trained {record.training}." in text and "This model is the teacher." in text


def test_native(tmp_path):
    torch.manual_seed(0)
    config = small_config(image_size=224, window_size=7, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
    EsViTModel(config).save_pretrained(tmp_path / "model")
    main([str(tmp_path / "model"), "--repo_id", "ada/native", "--dry_run", "--native"])
    folder = tmp_path / "model-native"
    assert list_names(folder) == ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    assert type(AutoModel.from_pretrained(folder)) is SwinModel
    text = (folder / "README.md").read_text()
    assert "trust_remote_code" not in text and "images of 224 x 224 px only" in text and card_problems(text) == ([], [])


def broken(tmp_path: Path, what: str) -> list[str]:
    """Arguments that cannot work."""
    folder = tmp_path / "model"
    if what == "no model":
        folder.mkdir()
    elif what == "checkpoint file":
        folder.write_bytes(b"")
    elif what == "other model":
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "swin"}')
    elif what == "damaged":
        save_with_heads(folder)
        (folder / "model.safetensors").write_bytes(b"damaged")
    elif what == "not native":
        save_with_heads(folder, window_size=8)
        return [str(folder), "--native"]
    elif what == "occupied":
        save_with_heads(folder)
        (tmp_path / "model-hub").mkdir()
        (tmp_path / "model-hub" / "thesis.txt").write_text("")
    elif what == "clone":
        save_with_heads(folder)
        clone = tmp_path / "model-hub"
        (clone / ".git").mkdir(parents=True)
        for name in ("config.json", "README.md", ".git/HEAD"):
            (clone / name).write_text("")
    elif what == "edited":
        save_with_heads(folder)
        main([str(folder), "--repo_id", "ada/x", "--dry_run"])
        (tmp_path / "model-hub" / "README.md").write_text("# My own words")
    elif what == "no checkpoints":
        save_with_heads(folder)
        return [str(folder), "--checkpoint", "best"]
    return [str(folder)]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nothing", "does not exist; name the folder of a run"),
        ("no model", "is neither a run nor a model folder"),
        ("checkpoint file", r"convert_original .*model FOLDER`; then publish FOLDER"),
        ("other model", "of type 'swin', not 'esvit'"),
        ("damaged", "The weights of .*model are damaged: .*[Hh]eader"),
        ("not native", "cannot carry this model"),
        ("occupied", "model-hub holds what this program has no record of writing: thesis.txt"),
        ("clone", "no record of writing: .git/HEAD, README.md, config.json. Nothing was removed"),
        ("edited", "model-hub was published before, and has changed since: README.md is not as it was written"),
        ("no checkpoints", "has no checkpoints to choose from"),
    ],
)
def test_refusals(tmp_path, what, message):
    arguments = broken(tmp_path, what)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main([*arguments, "--repo_id", "ada/x", "--dry_run"])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["nameless", "a/b/c", "ada/wrong name", "ada/-x"])
def test_names_are_checked_before_anything_is_done(tmp_path, name, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--repo_id", name])
    assert "--repo_id" in capsys.readouterr().err
