# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs `throughput.py`: the published scale, and the command."""

import json
import os

import pytest

import training.throughput as throughput
from modeling_esvit import EsViTConfig, EsViTModel
from tests.helpers.commands import type_arguments
from training.evaluation.speed import ThroughputError, ThroughputOptions, build_model, find_published
from training.options.command import run_command
from training.throughput import find_factor, read_published


def test_published_architectures_are_recognised():
    model, _ = build_model("swin-tiny@14", None, False)
    assert find_published(model) == {"architecture": "swin-tiny", "window": 14}
    assert find_published(EsViTModel(EsViTConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 2]))) == {}
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


def run(monkeypatch, *arguments) -> None:
    type_arguments(monkeypatch, "training/throughput.py", *arguments)
    run_command(throughput.main)


@pytest.mark.slow
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
    with pytest.raises(SystemExit):
        run(monkeypatch, "swin-tiny", "--output", tmp_path / "file" / "speed.json")
    assert "file (Not a directory)" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # the picture would take the place of the result
        run(monkeypatch, "swin-tiny", "--output", tmp_path / "speed.png")
    assert "names the JSON file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(monkeypatch, "swin-tiny", "--output", "/proc/speed.json")
    assert "nothing can be written in /proc" in capsys.readouterr().err


def killed(name, options):
    os._exit(9)  # as the kernel ends a process that takes too much memory


@pytest.mark.slow
def test_a_process_without_memory_and_a_wrong_device(monkeypatch):
    monkeypatch.setattr(throughput, "measure", killed)
    with pytest.raises(ThroughputError, match="the process that measured swin-tiny was killed.*which is 128"):
        throughput.measure_all(ThroughputOptions(["swin-tiny"]))
    type_arguments(monkeypatch, "training/throughput.py", "swin-tiny", "--device", "tpu9")
    with pytest.raises(SystemExit, match="error: --device tpu9 cannot be used"):
        run_command(throughput.main)
