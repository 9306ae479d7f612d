# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks backbones of transformers as encoders: pretrained weights, and what they cannot do."""

import pytest
import torch
from transformers import AutoBackbone

from modeling_esvit import (
    EsViTArchitectureError,
    EsViTBackbone,
    EsViTBackboneError,
    EsViTConfig,
    EsViTInputError,
    EsViTModel,
)
from tests.helpers.tiny_models import BACKBONES, DINO_V2, HIERA, RESNET, auto_config


WITH_ATTENTION = {"hiera", "swinv2", "dinov2", "pvt"}


# -- runs --------------------------------------------------------------------------------------------------------------


# -- what cannot be done -----------------------------------------------------------------------------------------------


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
