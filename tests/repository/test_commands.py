# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the README's commands as a user types them. `test_pretrain.py` has those that pretrain."""

import json
from pathlib import Path

import pytest
import torch

from modeling_esvit import EsViTConfig, EsViTForPreTraining
from tests.helpers.commands import run_program
from tests.helpers.paths import FIXTURES


def run(*command: str | Path) -> str:
    """Runs a Python command from the repository's root, and returns what it printed."""
    return run_program(["python", *command], timeout=900).stdout


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "photographs"
    patches = ["--patch_size", "64", "--train_per_photograph", "6", "--test_per_photograph", "2"]
    run("examples/photographs.py", folder, *patches)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small"
    torch.manual_seed(0)
    config = EsViTConfig(
        image_size=64,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[1, 2],
        num_prototypes=16,
        head_hidden_size=16,
        head_bottleneck_size=8,
    )
    EsViTForPreTraining(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_knn(photographs, model, tmp_path):
    result = tmp_path / "metrics.json"
    data = ["--train", f"{photographs}:train", "--test", f"{photographs}:test"]
    printed = run("training/knn.py", model, *data, "--k", "1", "5", "--output", result)
    scores = json.loads(result.read_text())
    assert scores["train_images"] == 19 * 6 and scores["test_images"] == 19 * 2
    assert f"{scores['k5_top1']:.2%}" in printed


@pytest.mark.slow
def test_correspondences(model, tmp_path):
    picture = tmp_path / "correspondences.png"
    printed = run("examples/correspondences.py", model, "--output", picture, "--image_size", "256", "384")
    assert picture.read_bytes().startswith(b"\x89PNG") and "regions matched" in printed


@pytest.mark.slow
def test_conversion(tmp_path):
    checkpoint = FIXTURES / "checkpoint_swin_tiny.pth"
    for options in ([], ["--native"], ["--key", "student"]):
        output = tmp_path / "-".join(["out", *options])
        run("-m", "modeling_esvit.convert_original", checkpoint, output, *options)
        model_type = json.loads((output / "config.json").read_text())["model_type"]
        assert model_type == ("swin" if options == ["--native"] else "esvit")


@pytest.mark.slow
def test_the_demo_learns(tmp_path):
    printed = run("examples/demo.py", tmp_path / "demo")
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    knn = {name: scores["knn"] for name, scores in results.items()}
    trained = knn["trained"]
    assert trained >= knn["untrained"] + 0.05
    assert trained > max(knn["mean colour"], knn["raw pixels"])
    for measure, gain in (("mirrored", 0.05), ("recoloured", 0.015)):
        assert results["trained"][measure] >= results["untrained"][measure] + gain
    assert "AutoModel: EsViTModel; pipeline: a feature of shape (1, 64)" in printed
    assert (tmp_path / "demo" / "view+region-seed0" / "matches.png").exists()
