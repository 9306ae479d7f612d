# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what is found out of a backbone of transformers or timm before it is used."""

import json

import pytest
import torch
from transformers import AutoBackbone, AutoConfig, ResNetBackbone, ResNetConfig, TimmBackboneConfig

from modeling_esvit import (
    EsViTBackboneError,
    EsViTConfig,
    EsViTForPreTraining,
    EsViTModel,
)
from modeling_esvit.backbone_probe import (
    describe_backbone,
    find_timm_name,
    find_unused_parameters,
    name_backbone,
    name_network,
)
from tests.helpers.tiny_models import BACKBONES, RESNET, auto_config
from training.learning.networks import build_config
from training.options.pretrain_options import parse_options


def test_other_code_is_not_run(tmp_path):
    """Not even after a question at the terminal; but classes that the user has imported and registered are taken."""
    folder = tmp_path / "their"
    folder.mkdir()
    fields = {**RESNET, "model_type": "their_resnet", "auto_map": {"AutoConfig": "theirs.Config"}}
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "theirs.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    given = ["--architecture", "auto", "--backbone", str(folder)]
    with pytest.raises(EsViTBackboneError, match=r"(?s)'their_resnet' needs code.*AutoBackbone.register"):
        build_config(parse_options(given))
    assert not (tmp_path / "run").exists()

    class Config(ResNetConfig):
        model_type = "their_resnet"

    class Backbone(ResNetBackbone):
        config_class = Config

    AutoConfig.register("their_resnet", Config)
    AutoBackbone.register(Config, Backbone)
    assert isinstance(EsViTModel(build_config(parse_options(given))).encoder.backbone, Backbone)


def test_a_network_has_the_name_that_people_know():
    named = {"timm:resnet10t": "resnet10t", "timm:local-dir:/home/ada/secret/lite0": "lite0", "timm:hf-hub:o/x": "x"}
    for backbone, name in named.items():
        assert name_backbone(TimmBackboneConfig(backbone=backbone.removeprefix("timm:"))) == name
    auto = EsViTConfig(architecture="auto", backbone_config=RESNET)
    assert [name_network(config) for config in (auto, EsViTConfig(), ResNetConfig())] == ["resnet", "swin", "resnet"]
    pvt = EsViTConfig.from_architecture("pvt-tiny")
    assert name_network(pvt) == "pvt"


def test_names_of_timm():
    model = EsViTModel(EsViTConfig(architecture="auto", backbone_config="timm:resnet18"))
    assert model.config.hidden_size == 512 and model.config.region_grid(224, 96) == (7, 3)
    for name, message in (("no_such", "cannot be built.*no_such"), ("swin_tiny_patch4_window7_224", "768 channels")):
        with pytest.raises(EsViTBackboneError, match=message):
            EsViTModel(EsViTConfig(architecture="auto", backbone_config=f"timm:{name}"))


def test_a_folder_of_timm_is_known_by_its_network(tmp_path):
    """Whoever loads the trained model has no such folder, and its name is private."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"architecture": "resnet18", "model_args": {"num_classes": 7, "global_pool": "avg"}}))
    assert find_timm_name(f"local-dir:{tmp_path}") == find_timm_name("resnet18") == "resnet18"
    for text, message in (
        ("{", "config.json does not describe a network of timm"),
        ("[]", "config.json does not describe a network of timm"),
        ("[" * 200_000, "config.json does not describe a network of timm"),
        ("{}", r"does not describe a network of timm \(KeyError\('architecture'\)\)"),
        ('{"architecture": 7}', "describes 7 with"),
        (
            '{"architecture": "resnet18", "model_args": {"drop_rate": 0.5}}',
            "'resnet18' with {'drop_rate': 0.5}. A backbone",
        ),
    ):
        config.write_text(text)
        with pytest.raises(EsViTBackboneError, match=message):
            find_timm_name(f"local-dir:{tmp_path}")
    with pytest.raises(FileNotFoundError):
        find_timm_name(f"local-dir:{tmp_path}/none")


def test_a_repository_of_timm_is_known_by_its_network(tmp_path, monkeypatch):
    """A model whose config.json names another repository is not loaded."""
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    asked = []
    monkeypatch.setattr(
        "modeling_esvit.backbone_probe.cached_file",
        lambda *names, revision: asked.append((*names, revision)) or tmp_path / "config.json",
        raising=False,
    )
    assert find_timm_name("hf-hub:timm/resnet18.a1_in1k") == find_timm_name("hf_hub:ada/net@v1") == "resnet18"
    assert asked == [("timm/resnet18.a1_in1k", "config.json", None), ("ada/net", "config.json", "v1")]


def test_no_trainable_parameter_is_without_gradient(tmp_path):
    """Such a one would stop DistributedDataParallel; FocalNet and DINOv2 have some."""
    names = {
        name: set(find_unused_parameters(describe_backbone(auto_config(f).backbone_config)))
        for name, f in BACKBONES.items()
    }
    assert names["dinov2"] == {"embeddings.mask_token"} and len(names["focalnet"]) == 2
    for name, fields in BACKBONES.items():
        EsViTForPreTraining(auto_config(fields)).save_pretrained(tmp_path / name)
        model = EsViTForPreTraining.from_pretrained(tmp_path / name).train()
        output = model([torch.randn(4, 3, 64, 64)])
        (output.view_embeddings.sum() + output.region_embeddings.sum()).backward()
        without = [n for n, p in model.esvit.named_parameters() if p.requires_grad and p.grad is None]
        assert not without, name
        frozen = {n for n, p in model.esvit.encoder.backbone.named_parameters() if not p.requires_grad}
        assert frozen == names[name]


def test_saved_configurations(tmp_path):
    """A backbone may be given in any way; what is saved is whole."""
    config = auto_config(RESNET)
    config.save_pretrained(tmp_path)
    loaded = EsViTConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict() and loaded.hidden_size == 64
    config.backbone_config.save_pretrained(tmp_path / "backbone")
    for given in (config.backbone_config, str(tmp_path / "backbone"), str(tmp_path / "backbone" / "config.json")):
        assert describe_backbone(auto_config(given).backbone_config) == describe_backbone(config.backbone_config)
    assert config.region_grid(224, 97) == (7, 4)
