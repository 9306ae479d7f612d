# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks backbones of transformers as encoders: pretrained weights, and what they cannot do."""

import json

import pytest
import torch
from transformers import AutoBackbone, AutoConfig, ResNetBackbone, ResNetConfig

from modeling_esvit import (
    EsViTArchitectureError,
    EsViTBackbone,
    EsViTBackboneError,
    EsViTConfig,
    EsViTForPreTraining,
    EsViTInputError,
    EsViTModel,
)
from modeling_esvit.backbone_probe import describe_backbone, find_unused_parameters
from tests.helpers.tiny_models import BACKBONES, DINO_V2, HIERA, RESNET, SWIN_V2, auto_config
from tests.helpers.tiny_runs import tiny_auto
from training.learning.networks import build_config
from training.options.pretrain_options import OptionError, parse_options
from training.pretrain import Pretraining


WITH_ATTENTION = {"hiera", "swinv2", "dinov2", "pvt"}


# -- runs --------------------------------------------------------------------------------------------------------------


def test_pretrained_weights_of_the_backbone(images, tmp_path):
    torch.manual_seed(7)
    pretrained = AutoBackbone.from_config(EsViTConfig(architecture="auto", backbone_config=DINO_V2).backbone_config)
    pretrained.save_pretrained(tmp_path / "dinov2")
    given = tiny_auto(images, tmp_path / "run", DINO_V2, "--max_steps 1")
    given[given.index("--backbone") + 1] = str(tmp_path / "dinov2")
    with_weights, without = (Pretraining(parse_options([*given, *more])) for more in (["--backbone_weights"], []))
    for name, tensor in pretrained.state_dict().items():
        assert torch.equal(with_weights.student.esvit.encoder.backbone.state_dict()[name], tensor)
        assert torch.equal(with_weights.teacher.esvit.encoder.backbone.state_dict()[name], tensor)
    embedding = "embeddings.patch_embeddings.projection.weight"
    random = without.student.esvit.encoder.backbone.state_dict()[embedding]
    assert not torch.equal(random, pretrained.state_dict()[embedding])


def test_stochastic_depth_of_the_student_alone(images, tmp_path):
    run = Pretraining(parse_options(tiny_auto(images, tmp_path / "run", SWIN_V2, "--drop_path_rate 0.4")))
    rates = [
        max(m.drop_prob for m in network.modules() if type(m).__name__.endswith("DropPath"))
        for network in (run.student, run.teacher)
    ]
    assert rates == [pytest.approx(0.4), 0.0]


# -- what cannot be done -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "changes", "message"),
    [
        (HIERA, "", "local_crop_sizes 32: The backbone hiera cannot take images of 32 x 32 .* it takes 64 x 64"),
        ({**HIERA, "image_size": [32, 32]}, "", "global_crop_size 64: .* built for 32 x 32"),
        ({"model_type": "bert"}, "", "no backbone of type 'bert'"),
        (RESNET, "--gradient_checkpointing", "gradient_checkpointing: not possible with resnet, which is not"),
        (RESNET, "--drop_path_rate 0.1", "resnet has no stochastic depth"),
        (RESNET, "--embed_dim 8", "embed_dim is for a Swin or CvT .*; not for a Backbone of transformers. Those of"),
        (RESNET, "--window_size 7", "window_size is for a Swin or CvT or ViL; not for a Backbone of transformers"),
        (RESNET, "--attn_implementation sdpa", "attn_implementation: resnet has no sdpa"),
        (RESNET, "--backbone_weights", "backbone_weights: there are none in .*run.json"),
        ([RESNET], "", "must be a configuration, a dict or a name, got"),
        (7, "", "must be a configuration, a dict or a name, got .*, which holds no fields"),
        ({**DINO_V2, "reshape_hidden_states": False}, "", r"dinov2 gives no feature map, but \[1, 65, 16\]"),
    ],
)
def test_refused_before_training(fields, changes, message, images, tmp_path):
    with pytest.raises((EsViTArchitectureError, EsViTBackboneError, OptionError), match=f"(?s){message}"):
        Pretraining(parse_options(tiny_auto(images, tmp_path / "run", fields, changes)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--architecture auto", "auto and backbone go together"),
        ("--backbone some/model", "auto and backbone go together"),
        ("--architecture swin-tiny --backbone_weights", "needs a backbone"),
    ],
)
def test_options_that_contradict_each_other(given, message):
    with pytest.raises(OptionError, match=message):
        parse_options(given.split())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "--architecture vil-tiny --local_crop_sizes 24",
            "local_crop_sizes 24: a crop of so few pixels has no region in a ViL",
        ),
        (
            "--architecture deit-tiny --global_crop_size 12",
            "global_crop_size 12: a crop of so few pixels has no region in a ViT",
        ),
        ("--architecture deit-tiny --window_size 7", "window_size is for a Swin or CvT or ViL; not for a ViT"),
        ("--architecture swin-tiny --vil_mode 1", "vil_mode is for a ViL; not for a Swin"),
        ("--architecture cvt-tiny --patch_size 8", "patch_size is for a Swin or ViL or ViT; not for a CvT"),
        (
            "--architecture auto --backbone no/where.json",
            "backbone 'no/where.json' is neither a folder nor a config.json",
        ),
    ],
)
def test_refused_of_other_architectures(given, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises((EsViTArchitectureError, OptionError), match=message):
        build_config(parse_options(given.split()))


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


def test_names_of_timm():
    model = EsViTModel(EsViTConfig(architecture="auto", backbone_config="timm:resnet18"))
    assert model.config.hidden_size == 512 and model.config.region_grid(224, 96) == (7, 3)
    for name, message in (("no_such", "cannot be built.*no_such"), ("swin_tiny_patch4_window7_224", "768 channels")):
        with pytest.raises(EsViTBackboneError, match=message):
            EsViTModel(EsViTConfig(architecture="auto", backbone_config=f"timm:{name}"))


def test_hidden_states_of_timm():
    """Its stages, also of a model whose stages transformers' own wrapper does not find."""
    model = EsViTModel(auto_config({"model_type": "timm_backbone", "backbone": "convnext_atto"})).eval()
    with torch.no_grad():
        output = model(torch.randn(1, 3, 64, 64), output_hidden_states=True)
    assert [tuple(state.shape[1:]) for state in output.hidden_states] == [
        (40, 16, 16),
        (80, 8, 8),
        (160, 4, 4),
        (320, 2, 2),
    ]
    torch.testing.assert_close(output.hidden_states[-1].flatten(2).mT, output.last_hidden_state)


def test_fields_of_own_architectures_are_no_backbones():
    """A ResNet-101 would be a ResNet-50 without a word."""
    for fields, message in (
        ({"depths": [3, 4, 23, 3]}, "depths is"),
        ({"num_channels": 1, "window_size": 7}, "num_channels is .*window_size is"),
    ):
        with pytest.raises(EsViTArchitectureError, match=f"{message}.*backbone_config"):
            EsViTConfig.from_architecture("resnet-50", **fields)


def test_refused_by_the_model():
    with pytest.raises(EsViTBackboneError, match="no backbone of another one.*--init_from"):
        EsViTConfig(architecture="auto", backbone_config=EsViTConfig())
    for wrong, message in ((None, "needs a backbone_config"), (3, "got 3"), ({"model_type": "gpt2"}, "'gpt2'; it has")):
        with pytest.raises(EsViTBackboneError, match=message):
            EsViTConfig(architecture="auto", backbone_config=wrong)
    with pytest.raises(EsViTInputError, match="hiera cannot take images of 48 x 32 pixels"):
        EsViTModel(auto_config(HIERA))(torch.zeros(1, 3, 48, 32))
    with pytest.raises(ValueError, match="n must be an integer between 1 and the 1"):
        EsViTModel(auto_config(RESNET)).n_last_blocks_features(torch.zeros(1, 3, 64, 64), 2)
    for name in BACKBONES.keys() - WITH_ATTENTION:
        with pytest.raises(EsViTBackboneError, match="attention weights"):
            EsViTModel(auto_config(BACKBONES[name]))(torch.zeros(1, 3, 64, 64), output_attentions=True)


# -- the encoder -------------------------------------------------------------------------------------------------------


def test_parameters_that_are_made_on_the_cpu_whatever_the_device():
    fields = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = auto_config({"model_type": "lw_detr_vit", "window_block_indices": [0], "out_indices": [2], **fields})
    model = EsViTModel(config)
    assert config.region_grid(64, 128) == (4, 8)
    assert model(torch.randn(2, 3, 64, 128)).last_hidden_state.shape == (2, 32, 16)
    with pytest.raises(EsViTInputError, match="cannot take images of 96 x 96 pixels; it takes 128 x 128"):
        model(torch.randn(2, 3, 96, 96))


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_equals_the_backbone_alone(name):
    """Also where states and attention are recorded: the backbone's own records must not be disturbed."""
    torch.manual_seed(0)
    model = EsViTModel(auto_config(BACKBONES[name])).eval()
    alone = AutoBackbone.from_config(auto_config(BACKBONES[name]).backbone_config).eval()
    alone.load_state_dict(model.encoder.backbone.state_dict())
    image = torch.randn(2, 3, 64, 64)
    attends = {"output_attentions": True} if name in WITH_ATTENTION else {}
    for flags in ({}, {"output_hidden_states": True}, attends):
        output = model(image, **flags)
        if "output_attentions" in flags:
            alone.set_attn_implementation("eager")
        expected = alone(image, **flags)
        regions = expected.feature_maps[-1].flatten(2).transpose(1, 2)
        torch.testing.assert_close(output.last_hidden_state, regions, rtol=0, atol=1e-6)
        for record in ("hidden_states", "attentions"):
            if f"output_{record}" in flags:
                ours, theirs = output[record], expected[record]
                assert len(ours) == len(theirs)
                for one, other in zip(ours, theirs, strict=True):
                    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_attentions_of_several_groups():
    """One entry a layer, of which each has one a group, as in other architectures."""
    model = EsViTModel(auto_config(DINO_V2)).eval()
    with torch.no_grad():
        groups = [torch.randn(2, 3, 64, 64), torch.randn(3, 3, 32, 32)]
        attentions = model(groups, output_attentions=True).attentions
        alone = [model(group, output_attentions=True).attentions for group in groups]
    assert len(attentions) == 2
    for layer, (first, second) in enumerate(attentions):
        torch.testing.assert_close(first, alone[0][layer])
        torch.testing.assert_close(second, alone[1][layer])


@pytest.mark.parametrize("name", ["resnet", "convnextv2", "swinv2", "timm"])
@torch.no_grad()
def test_backbone_class(name, tmp_path):
    stages = ["layer2", "layer4"] if name == "timm" else ["stage2", "stage4"]
    EsViTBackbone(auto_config(BACKBONES[name], out_features=stages)).save_pretrained(tmp_path)
    backbone = EsViTBackbone.from_pretrained(tmp_path).eval()
    image = torch.randn(2, 3, 64, 64)
    maps = backbone(image).feature_maps
    assert [m.shape[1] for m in maps] == backbone.channels and maps[0].shape[2:] == (8, 8)
    regions = backbone.esvit(image).last_hidden_state
    torch.testing.assert_close(maps[-1].flatten(2).transpose(1, 2), regions)


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
