# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the names of frozen models, and the size and statistics of what they see."""

import json
import os
import sys
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.helpers.tiny_runs import write_model
from training.features import frozen_models
from training.features.frozen_models import FrozenModelError, find_training_view, load_frozen, make_file_name
from training.learning.backbones import load_timm_weights


STATISTICS = {"image_mean": (0.5,), "image_std": (0.25,)}
SIZE = {"height": 8, "width": 6}


@pytest.mark.parametrize(
    "processing",
    [
        {"do_center_crop": True, "crop_size": SIZE, "size": {"shortest_edge": 9}, **STATISTICS},
        {"do_center_crop": False, "crop_size": None, "size": SIZE, **STATISTICS},
        {"do_center_crop": None, "crop_size": None, "size": {"shortest_edge": 8}, "crop_pct": 0.9, **STATISTICS},
        {"input_size": (3, 8, 6), "mean": (0.5,), "std": (0.25,)},
    ],
)
def test_the_view_of_training_has_the_size_of_the_evaluation(processing):
    model = SimpleNamespace(name="x", settings={"processing": processing})
    assert find_training_view(model) == ((8, 8 if "crop_pct" in processing else 6), (0.5,), (0.25,))


def test_a_processor_without_a_size_is_named():
    model = SimpleNamespace(name="org/x", settings={"processing": {"size": {"shortest_edge": 9}}})
    with pytest.raises(FrozenModelError, match="the image processor of org/x does not name its size"):
        find_training_view(model)


def test_files_are_named_after_the_last_two_parts():
    assert make_file_name("/a/runs/mine/teacher/") == "mine-teacher"
    assert make_file_name("timm:resnet 18.a1") == "timm-resnet-18.a1"


def test_timm_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(FrozenModelError, match="timm:resnet18 needs timm: pip install timm"):
        load_frozen("timm:resnet18")


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_weights_of_timm_are_never_unpickled(tmp_path):
    """With the oldest timm that is allowed as with the newest: see `make test-floors`."""
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_vit", "num_classes": 0}))
    for name in ("pytorch_model.bin", "model.pth"):
        torch.save({"cls_token": Canary(tmp_path / "canary")}, tmp_path / name)
        with pytest.raises(FrozenModelError, match="timm cannot load .*weights_only"):
            load_frozen(f"timm:local-dir:{tmp_path}")
        config = SimpleNamespace(backbone=f"local-dir:{tmp_path}", features_only=False, num_channels=3)
        config.out_indices = config.output_stride = None
        with pytest.raises(RuntimeError, match="weights_only"):
            load_timm_weights(config)
        (tmp_path / name).unlink()
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": 7}, "timm cannot load"),
        ({"model_args": {"embed_dim": 2**12}}, "numbers or more, and its weights"),
        ({"pretrained_cfg": {"input_size": [3, 10**6, 10**6]}}, "input_size"),
    ],
)
def test_a_configuration_of_timm_that_cannot_be(tmp_path, fields, message):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_vit", "pretrained_cfg": {}, **fields}))
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(FrozenModelError, match=message):
        load_frozen(f"timm:local-dir:{tmp_path}")


def test_the_untrained_network_is_the_same_in_each_call_and_another_one(tmp_path):
    folder = str(write_model(tmp_path / "model"))
    trained, state = load_frozen(folder), torch.get_rng_state()
    first, second = (load_frozen(folder, untrained=True) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.name == "untrained" and first.settings == second.settings
    assert first.settings["weights"] != trained.settings["weights"]
    assert first.settings["processing"] == trained.settings["processing"]
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(first.features(pixels), second.features(pixels))
    assert not torch.equal(first.features(pixels), trained.features(pixels))


def test_the_untrained_network_of_timm(monkeypatch):
    timm = pytest.importorskip("timm")
    monkeypatch.setattr(frozen_models, "require_hub", lambda *arguments: None)
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **options | {"pretrained": False}))
    first, second = (load_frozen("timm:test_resnet", untrained=True) for _ in range(2))
    assert first.settings["weights"] == second.settings["weights"]
    assert first.settings["weights"] != load_frozen("timm:test_resnet").settings["weights"]
