# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs `linear_features.py`."""

import json

import pytest
import torch
from PIL import Image

import training.linear_features as linear_features
from modeling_esvit import EsViTConfig, EsViTModel
from tests.helpers.commands import type_arguments
from tests.helpers.tiny_runs import write_images
from training.options.command import run_command
from training.publishing.card import read_metrics
from training.publishing.card_template import to_percent


def mean_of(result: dict, row: int, name: str) -> float:
    """In percent, as on a card."""
    values = result["low_shot"][row][name]
    return round(100 * sum(values) / len(values), 2)


def test_command(tmp_path, monkeypatch):
    torch.manual_seed(0)
    sizes = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    EsViTModel(EsViTConfig(**sizes)).save_pretrained(tmp_path / "model")
    images = write_images(tmp_path / "train", 12, classes="ab"), write_images(tmp_path / "test", 8, classes="abc")
    data = ["--train", images[0], "--test", images[1], "--features", tmp_path / "features"]

    def command(*changes, without=()) -> dict:
        own = [word for word in data if word not in without]
        given = [tmp_path / "model", *own, "--output", tmp_path / "r.json", *changes]
        type_arguments(monkeypatch, "training/linear_features.py", *given)
        run_command(linear_features.main)
        return json.loads((tmp_path / "r.json").read_text())

    result = command("--l2", 1e-4, 1)
    assert set(result["held_out_top1"]) == {"0.0001", "1"} and result["unknown_class_images"] == 2
    assert 0 <= result["top1"] <= 0.75 and "top5" not in result  # two of eight are of no training class, of two
    assert [figure["value"] for figure in result["figures"]] == [result["top1"]]
    result = command("--l2", 1, "--against", "untrained")
    assert result["figures"][0]["chance"] == result["chance"]
    assert result["figures"][0]["before"] == result["against"]["untrained"]["top1"]
    with Image.open(tmp_path / "r.png") as picture:
        assert picture.format == "PNG"
    result = command("--solver", "ridge", "--shots", "50%", 1, "--seeds", 0, 1, "--l2", 0.1)
    assert [(row["shots"], row["images"], len(row["ridge"])) for row in result["low_shot"]] == [
        ("50%", 6, 2),
        ("1", 2, 2),
    ]
    assert "±" in (tmp_path / "r.md").read_text() and "](r.png)" in (tmp_path / "r.md").read_text()
    shown, how = read_metrics(tmp_path / "r.json", "ada/x", tmp_path / "model")
    assert [(figure.name, to_percent(figure.value)) for figure in shown][:2] == [
        ("linear (ridge, stored features) top-1, 50% of each class, mean of 2 draws", mean_of(result, 0, "ridge")),
        ("k-NN top-1, 50% of each class, mean of 2 draws", mean_of(result, 0, "knn")),
    ]
    assert (len(shown), shown[0].dataset, shown[0].split) == (4, "a folder of images", None)
    result = command("--l2", 0.1, "--test_share", 0.5, without=["--test", images[1]])
    assert (result["train_images"], result["test_images"], result["test"]) == (6, 6, None)
    assert result["figures"][0]["split"] == "50% of each class"
    options = "--solver ridge --shots 50% 1 --seeds 0 1 --l2 0.1"
    assert how == f"`python training/linear_features.py ada/x --train FOLDER --test FOLDER {options}`"
    with pytest.raises(SystemExit, match="given one --l2"):
        command("--shots", 1)
    with pytest.raises(SystemExit) as error:
        command("--l2", 1, "nan")
    assert error.value.code == 2  # of wrong arguments
