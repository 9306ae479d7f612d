# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Throughput: operations by hand, the published scale, models of all kinds without weights, and the command."""

import json
import os
import sys
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import ViTConfig

import training.throughput as throughput
from modeling_esvit import EsViTConfig, EsViTModel
from training.evaluation.model_counts import parameters_and_operations
from training.evaluation.speed import ThroughputError, ThroughputOptions, build, measure, published
from training.features.frozen_models import FrozenModelError
from training.figures.throughput import draw
from training.options.command import run_command
from training.throughput import find_factor, read_published


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2, stride=2)

    def forward(self, pixels):
        tokens = self.conv(pixels).flatten(2).transpose(1, 2)
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


def test_operations_by_hand():
    """A convolution at 16 places of 12 inputs and 4 outputs; attention: 16 x 4 times 4 x 16, 16 x 16 times 16 x 4."""
    parameters, operations = parameters_and_operations(Attention(), torch.zeros(1, 3, 8, 8))
    assert parameters == 4 * 3 * 2 * 2 + 4
    assert operations == 2 * 16 * 4 * 12 + 2 * 2 * 16 * 16 * 4


def test_models_of_all_kinds(tmp_path):
    ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=32).save_pretrained(
        tmp_path / "vit"
    )
    EsViTConfig(image_size=64, embed_dim=8, depths=[1, 1], num_heads=[1, 2]).save_pretrained(tmp_path / "ours")
    sides = {}
    for name in (str(tmp_path / "vit"), str(tmp_path / "ours"), "timm:resnet10t", "deit-tiny"):
        model, sides[name] = build(name, None, False)
        assert next(model.parameters()) is not None
    assert list(sides.values()) == [32, 64, 176, 224]
    assert build("timm:resnet10t", 64, False)[1] == 64
    for wrong, error in (
        ("timm:no_such", FrozenModelError),
        ("swin-tinny@7", ThroughputError),
        ("swin-tiny@seven", ThroughputError),
    ):
        with pytest.raises(error):
            build(wrong, None, False)


def test_published_architectures_are_recognised():
    model, _ = build("swin-tiny@14", None, False)
    assert published(model) == {"architecture": "swin-tiny", "window": 14}
    assert published(EsViTModel(EsViTConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 2]))) == {}
    rows = read_published()
    assert len(rows) == 15 and [row["linear"] for row in rows if row["method"] == "EsViT"] == [
        78.1,
        79.5,
        80.4,
        80.8,
        81.3,
    ]
    measured = {
        "a": {"architecture": "swin-tiny", "window": 7, "images_per_second": 8.08},
        "b": {"architecture": "deit-small", "images_per_second": 1007 / 400},
        "c": {"images_per_second": 5.0},
    }
    assert find_factor(measured, rows) == pytest.approx(200)  # of 100 and 400
    assert find_factor({"c": measured["c"]}, rows) is None


def test_names_do_not_cover_each_other():
    """Nor marks of models, in the figure alone and where a fast model makes it narrow."""
    fast = {"images_per_second": 20_000.0}
    for models in ({}, {"fast": fast, "swin-tiny": {"images_per_second": 808.0, "linear": 77.4}}):
        figure = draw({"device": "x", "models": models}, read_published(), 1.0)
        [axes] = figure.axes
        names = [text.get_window_extent() for text in axes.texts if len(text.get_text()) > 1]
        marks = [text.get_window_extent() for text in axes.texts if len(text.get_text()) == 1]
        assert len(names) == 15 and all(axes.bbox.count_contains(name.corners()) == 4 for name in names)
        assert not any(one.overlaps(other) for one, other in combinations(names, 2))
        assert not any(mark.overlaps(name) for mark in marks for name in names)


def test_a_measurement(tmp_path):
    EsViTConfig(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4).save_pretrained(tmp_path)
    options = ThroughputOptions([str(tmp_path)], batch_size=4, batches=3, warmup=1, device="cpu")
    row = measure(str(tmp_path), options)
    assert row["slowest_images_per_second"] <= row["images_per_second"] <= row["fastest_images_per_second"]
    model = EsViTModel(EsViTConfig.from_pretrained(tmp_path))
    assert row["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert row["peak_bytes"] > 10**7 and row["image_size"] == 32 and "architecture" not in row
    with pytest.raises(ThroughputError, match="cannot be run on 1 images of 8 x 8"):
        measure("timm:vit_tiny_patch16_224", ThroughputOptions([], batch_size=1, image_size=8, device="cpu"))


def run(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["throughput.py", *map(str, arguments)])
    run_command(throughput.main)


def test_command(tmp_path, monkeypatch):
    EsViTConfig(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4).save_pretrained(
        tmp_path / "m"
    )
    model, output = tmp_path / "m", tmp_path / "results" / "speed.json"
    sizes = ["--batch_size", 2, "--batches", 2, "--warmup", 0, "--device", "cpu"]
    run(monkeypatch, model, *sizes, "--output", output, "--accuracy", f"{model}=77.4")
    result = json.loads(output.read_text())
    assert result["models"][str(model)]["linear"] == 77.4 and result["batch_size"] == 2
    assert f"| {model} | " in output.with_suffix(".md").read_text()
    assert output.with_suffix(".png").stat().st_size > 20_000
    for wrong, message in (
        (["--accuracy", "other=70"], "name one of"),
        (["--accuracy", f"{model}=high"], "write MODEL=PERCENT"),
        (["no/such/model"], "no/such/model"),
        (["vil-tinny@3"], "vil-tinny@3"),
        (["swin-tiny@0"], "swin-tiny@0.*window_size must be at least 1"),
        (["--image_size", 3], "2 images of 3 x 3 pixels: An image of 3 x 3 pixels is smaller than one patch"),
    ):
        with pytest.raises(SystemExit, match=message):
            run(monkeypatch, model, *wrong, *sizes)


def test_an_output_that_cannot_be_written_is_refused_first(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(throughput, "measure_all", None)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="error: .*file"):
        run(monkeypatch, "swin-tiny", "--output", tmp_path / "file" / "speed.json")
    with pytest.raises(SystemExit):  # the picture would take the place of the result
        run(monkeypatch, "swin-tiny", "--output", tmp_path / "speed.png")
    assert "names the JSON file" in capsys.readouterr().err
    monkeypatch.setattr(os, "access", lambda folder, mode: False)  # as of a read-only file system; root may write else
    with pytest.raises(SystemExit):
        run(monkeypatch, "swin-tiny", "--output", tmp_path / "speed.json")
    assert "cannot be written to" in capsys.readouterr().err


def killed(name, options):
    os._exit(9)  # as the kernel ends a process that takes too much memory


def test_a_process_without_memory_and_a_wrong_device(monkeypatch):
    monkeypatch.setattr(throughput, "measure", killed)
    with pytest.raises(ThroughputError, match="the process that measured swin-tiny was killed.*which is 128"):
        throughput.measure_all(ThroughputOptions(["swin-tiny"]))
    monkeypatch.setattr(sys, "argv", ["throughput.py", "swin-tiny", "--device", "tpu9"])
    with pytest.raises(SystemExit, match="error: --device tpu9 cannot be used"):
        run_command(throughput.main)
