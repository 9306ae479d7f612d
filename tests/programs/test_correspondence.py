# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The correspondence command: any model and data, shared and continued work, results and pictures."""

import json
import re

import pytest
import torch
from PIL import Image
from transformers import BitImageProcessor, ViTConfig, ViTModel

import training.correspondence as correspondence
import training.matching.over_images as matching_images
from modeling_esvit import EsViTModel
from tests.helpers.commands import run_program, torchrun, type_arguments
from tests.helpers.tiny_runs import write_images, write_model
from training.evaluation.correspondence_table import STEREO_DATA
from training.evaluation.result_files import read_result_file
from training.features.frozen_models import TimmModel
from training.features.regions import compute_region_features
from training.options.command import run_command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """26 images without labels, of which one cannot be read."""
    path = write_images(tmp_path_factory.mktemp("data") / "images")
    (path / "07.png").write_bytes(b"no image")
    return path


def command(monkeypatch, *arguments):
    type_arguments(monkeypatch, "training/correspondence.py", *arguments)
    run_command(correspondence.correspondence_command)


def test_result_table_and_pictures(folder, images, tmp_path, monkeypatch, caplog, capsys):
    output = tmp_path / "new" / "result.json"
    options = ["--batch_size", 5, "--device", "cpu", "--stereo_size", 64, 96]
    command(monkeypatch, folder, "--data", images, "--output", output, *options)
    result = json.loads(output.read_text())
    assert (result["data"], result["images"], result["image_size"], result["grid"]) == (str(images), 25, 32, [4, 4])
    assert result["mirrored"]["chance_accuracy"] == 1 / 16 < result["mirrored"]["accuracy"] < 1
    assert result["crops"]["chance_exact"] < result["crops"]["exact"] < result["crops"]["within_one"] < 1
    assert result["recoloured"]["exact"] < result["crops"]["exact"] and result["stereo"]["regions"] > 30
    figures = {(figure["name"], figure["dataset"]): figure["value"] for figure in result["figures"]}
    assert {figure["task"] for figure in result["figures"]} == {"image-feature-extraction"}
    assert figures["region correspondence, mirrored", "a folder of images"] == result["mirrored"]["accuracy"]
    assert figures["region correspondence, crops", "a folder of images"] == result["crops"]["within_one"]
    assert figures["region correspondence, stereo", STEREO_DATA] == result["stereo"]["within_one"]
    assert "07.png" in caplog.text
    assert sorted(path.name for path in output.parent.iterdir()) == [
        "result-curves.png",
        "result.json",
        "result.md",
        "result.png",
    ]
    text, shown = output.with_suffix(".md").read_text(), capsys.readouterr().out
    assert "| crops: exactly |" in text and "exactly" not in shown and shown.startswith("25 images.\n\n| model |")
    assert "| 4 x 4 of 32 px |" in shown and "% (6.2%) |" in shown and "points above chance" in shown.splitlines()[-1]
    assert min(Image.open(output.with_suffix(".png")).size) > 500

    command(monkeypatch, folder, "--data", images, "--measures", "mirrored", "--image_size", 24, "--seed", 1)
    assert "| 3 x 3 of 24 px |" in capsys.readouterr().out


def test_a_model_stands_beside_others_in_a_size_that_fits(images, tmp_path, monkeypatch, caplog, capsys):
    odd, other = write_model(tmp_path / "odd", image_size=36), write_model(tmp_path / "other")
    output = tmp_path / "new" / "result.json"
    given = [odd, "--data", images, "--output", output, "--batch_size", 13, "--device", "cpu"]
    with pytest.raises(SystemExit, match="as by --image_size 40"):
        command(monkeypatch, *given, "--image_size", 36)
    assert not output.parent.exists()  # nothing is left behind
    command(monkeypatch, *given, "--measures", "mirrored", "crops", "--against", "untrained", other)
    shown = capsys.readouterr().out
    assert f"{odd}: views of 40 px, since its regions do not divide its own 36 px (--image_size)." in shown
    rows = [line.split(" | ") for line in shown.splitlines() if line.startswith("| ")]
    assert [row[:2] for row in rows[2:]] == [
        [f"| {odd}", "5 x 5 of 40 px"],
        ["| untrained", "5 x 5 of 40 px"],
        [f"| {other}", "4 x 4 of 32 px"],
    ]
    last = shown.splitlines()[-1]
    assert last.startswith(f"By mirrored: right, of the ten most similar, {odd}: ") and "above chance" in last
    assert "untrained" in last and caplog.text.count("07.png") == 1
    result = json.loads(output.read_text())
    own, untrained = result["mirrored"], result["against"]["untrained"]["mirrored"]
    assert own["accuracy"] != untrained["accuracy"] and own["chance_accuracy"] == 1 / 25
    figure = next(figure for figure in result["figures"] if figure["name"].endswith("mirrored"))
    assert (figure["chance"], figure["before"]) == (1 / 25, untrained["accuracy"])
    assert len([*output.parent.iterdir()]) == 4


def test_stopped_call_goes_on(folder, images, tmp_path, monkeypatch):
    """What was made before is not made again, and the result is that of one call."""
    monkeypatch.setattr(matching_images, "BATCHES", 2)
    options = ["--batch_size", 5, "--measures", "mirrored", "crops", "--device", "cpu"]
    command(monkeypatch, folder, "--data", images, "--output", tmp_path / "whole.json", *options)
    batches = []

    def counted(matcher, name, pairs, names):
        batches.append(names)
        if len(batches) == 6:
            raise KeyboardInterrupt
        return score_pairs(matcher, name, pairs, names)

    score_pairs = matching_images.score_pairs
    monkeypatch.setattr(matching_images, "score_pairs", counted)
    arguments = [folder, "--data", images, "--output", tmp_path / "again.json", *options]
    with pytest.raises(SystemExit, match="130"):
        command(monkeypatch, *arguments)
    with pytest.raises(SystemExit, match="seed was 0 and is 1"):
        command(monkeypatch, *arguments, "--seed", 1)
    command(monkeypatch, *arguments)
    assert len(batches) == 6 + 8  # two parts of two batches each, and the rest of the images, for two measures
    assert read_result_file(tmp_path / "again.json") == read_result_file(tmp_path / "whole.json")


def test_other_models(tmp_path):
    """Class tokens are not regions; maps are; timm's layouts are told apart; sizes other than the model's."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    vit = ViTModel(ViTConfig(image_size=64, patch_size=16, **sizes)).eval()
    pixels = torch.randn(2, 3, 64, 64)
    features, places = compute_region_features(vit, pixels)
    assert places.grid == (4, 4) and torch.equal(features, vit(pixels).last_hidden_state[:, 1:])
    assert compute_region_features(vit, torch.randn(1, 3, 96, 128))[1].grid == (6, 8)
    timm = pytest.importorskip("timm")
    for name, side, count in (("vit_tiny_patch16_224", 64, 16), ("resnet18", 64, 4), ("convnext_atto", 64, 4)):
        options = {"img_size": side} if "vit" in name else {}
        model = TimmModel(timm.create_model(name, num_classes=0, **options)).eval()
        features, places = compute_region_features(model, torch.randn(1, 3, side, side))
        grid = places.grid
        assert features.shape == (1, count, model.model.num_features) and grid[0] * grid[1] == count
    swin = TimmModel(timm.create_model("swin_tiny_patch4_window7_224", num_classes=0)).eval()
    features, places = compute_region_features(swin, torch.randn(1, 3, 224, 224))
    assert features.shape == (1, 49, 768) and places.grid == (7, 7)
    pooled = swin.model.forward_head(swin.model.forward_features(torch.zeros(1, 3, 224, 224)), pre_logits=True)
    torch.testing.assert_close(compute_region_features(swin, torch.zeros(1, 3, 224, 224))[0].mean(1), pooled)
    with pytest.raises(ValueError, match="refuses the images"):
        compute_region_features(swin, torch.randn(1, 3, 64, 64))


def test_what_cannot_be_measured(folder, images, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        command(monkeypatch, folder, "--measures", "crops")
    assert "--data is missing" in capsys.readouterr().err
    for sizes in (["--image_size", 0], ["--stereo_size", 64, 0]):
        with pytest.raises(SystemExit):
            command(monkeypatch, folder, "--data", images, *sizes)
        assert "must be at least 1, got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="1 x 1 pixels is smaller than one patch"):
        command(monkeypatch, folder, "--data", images, "--image_size", 1)
    with pytest.raises(SystemExit, match="nowhere"):
        command(monkeypatch, folder, "--data", tmp_path / "nowhere")
    with pytest.raises(SystemExit, match="no grid of square regions: choose a size"):
        command(monkeypatch, folder, "--stereo_size", 100, 96)
    broken = EsViTModel.from_pretrained(folder)
    torch.nn.init.constant_(broken.encoder.norm.bias, torch.nan)
    broken.save_pretrained(tmp_path / "broken")
    BitImageProcessor.from_pretrained(folder).save_pretrained(tmp_path / "broken")
    with pytest.raises(SystemExit, match=re.escape("00.png is not finite")):
        command(monkeypatch, tmp_path / "broken", "--data", images, "--measures", "mirrored")


@pytest.mark.slow
def test_two_processes_give_the_digits_of_one(folder, images, tmp_path):
    options = [folder, "--data", images, "--batch_size", 1, "--device", "cpu", "--stereo_size", 64, 96]
    results = []
    for launcher in (["python"], torchrun(2)):
        output = tmp_path / f"{len(launcher)}.json"
        command = [*launcher, "training/correspondence.py", *options, "--output", output]
        done = run_program(command, HF_HUB_OFFLINE="1")
        assert done.stdout.count("| model |") == 1
        results.append(output.read_text())
    assert results[0] == results[1]
