# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that configurations name the value that cannot be, and give the grid of regions of their model."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from modeling_esvit import (
    EsViTArchitectureError,
    EsViTConfig,
    EsViTModel,
)


def small_config(**fields):
    """Maps of 16, 8 and 4 tokens at 64 px, with window 4 and shifts in the first two stages."""
    sizes = {"image_size": 64, "embed_dim": 8, "depths": [2, 1, 2], "num_heads": [2, 2, 4], "window_size": 4}
    heads = {"num_prototypes": 16, "head_hidden_size": 12, "head_bottleneck_size": 8}
    return EsViTConfig(**{**sizes, **heads, **fields})


def test_unknown_architecture_names_the_nearest():
    with pytest.raises(EsViTArchitectureError, match="'swin-tinny'; did you mean 'swin-tiny'"):
        EsViTConfig.from_architecture("swin-tinny")
    assert EsViTConfig.from_architecture("swin-tiny", drop_path_rate=0.0, num_labels=5).num_labels == 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "resnet"}, "'resnet'"),
        ({"depths": [2, 2]}, r"\[2, 2\] and num_heads"),
        ({"depths": [], "num_heads": []}, "one entry per stage"),
        ({"depths": [2, 0, 2]}, r"depths \[2, 0, 2\]"),
        ({"num_heads": [3, 2, 4]}, r"num_heads\[0\]=3 must divide the width 8"),
        ({"embed_dim": 0}, "got 0"),
        ({"window_size": 0}, "window_size must be at least 1, got 0"),
        ({"head_bottleneck_size": 0}, "head_bottleneck_size must be at least 1, got 0"),
        ({"drop_path_rate": 1.0}, "drop_path_rate must be at least 0 and below 1, got 1.0"),
        ({"image_size": 12}, "image_size 12 with patch_size 4 .* at least 16"),
        ({"image_size": [64, 64, 3]}, r"\[64, 64, 3\]"),
        ({"image_size": "64"}, "'image_size' with value '64'"),
        ({"qkv_bias": "yes"}, "expected bool, got str"),
        ({"out_features": ["stage9"]}, "stage9"),
        ({"backbone_config": {"model_type": "resnet"}}, "backbone_config is for a Backbone of transf.*not for a Swin"),
    ],
)
def test_invalid_configurations_name_the_value(fields, message):
    with pytest.raises((StrictDataclassError, ValueError), match=f"(?s){message}"):
        small_config(**fields)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("deit-tiny", {"window_size": 14}, "window_size is for a Swin or CvT or ViL; not for a ViT"),
        ("deit-tiny", {"patch_norm": False}, "patch_norm is for a Swin; not for a ViT"),
        ("vil-tiny", {"use_absolute_embeddings": True}, "use_absolute_embeddings is for a Swin; not for a ViL"),
        (
            "swin-tiny",
            {"stage_dims": [96], "vil_mode": 1},
            "stage_dims is .*; vil_mode is .*; not for a Swin",
        ),
        ("cvt-tiny", {"patch_size": 8}, "patch_size is for a Swin or ViL or ViT; not for a CvT"),
        ("resnet-50", {"drop_path_rate": 0.2}, "not for a Backbone of transformers. Those .* in its backbone_config"),
    ],
)
def test_fields_of_other_architectures_are_refused(name, fields, message):
    """However they are given; a configuration that has been saved has them all, at their defaults."""
    config = EsViTConfig.from_architecture(name)
    assert EsViTConfig(**EsViTConfig(**config.to_dict()).to_dict()).to_dict() == config.to_dict()
    with pytest.raises(EsViTArchitectureError, match=message):
        EsViTConfig.from_architecture(name, **fields)
    with pytest.raises(EsViTArchitectureError, match=message):
        EsViTConfig(**{**config.to_dict(), **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depths": [1], "embed_dim": 5}, "embed_dim is 5, but .* transformers it follows from .*, and is 2048; leave"),
        ({"depths": [3]}, r"depths is \[3\], .* and is \[1\]; leave depths out"),
        ({"num_heads": (3, 3)}, r"num_heads is \(3, 3\)"),
        ({"num_attention_heads": [3]}, r"num_heads is \[3\]"),
        ({"patch_size": 16}, "patch_size is 16"),
        ({"num_channels": 1}, "num_channels is 1"),
        ({"num_hidden_layers": 9}, "num_hidden_layers is 9, .* and is 4; leave num_hidden_layers out"),
    ],
)
def test_fields_that_contradict_a_backbone(fields, message):
    """A saved file holds what follows from the backbone."""
    resnet = {"architecture": "auto", "backbone_config": {"model_type": "resnet"}}
    saved = EsViTConfig(**resnet).to_dict()
    assert EsViTConfig(**saved).to_dict() == saved
    assert {"depths": [1], "num_heads": [1], "embed_dim": 2048, "num_layers": 4}.items() <= saved.items()
    for given in (resnet, saved):
        with pytest.raises(EsViTArchitectureError, match=message):
            EsViTConfig(**{**given, **fields})


def test_layers_follow_from_depths():
    assert small_config(num_hidden_layers=3).num_hidden_layers == 3
    with pytest.raises(EsViTArchitectureError, match="num_hidden_layers is 9, but for this Swin .*, and is 3; leave"):
        small_config(num_hidden_layers=9)
    with pytest.raises(EsViTArchitectureError, match="num_hidden_layers is 9"):
        EsViTConfig.from_architecture("swin-tiny", num_hidden_layers=9)
    assert small_config(num_attention_heads=[1, 2, 4]).num_heads == [1, 2, 4]
    with pytest.raises(EsViTArchitectureError, match="num_heads is for a Swin.*not for a Backbone of transformers"):
        EsViTConfig.from_architecture("resnet-50", num_attention_heads=[3])
    with pytest.raises(EsViTArchitectureError, match="num_attention_heads is another name of num_heads"):
        EsViTConfig.from_architecture("deit-tiny", num_attention_heads=[3], num_heads=[4])


@pytest.mark.parametrize(
    "outputs",
    [
        {"out_features": ["foo"]},
        {"out_features": ["stage2", "stage1"]},
        {"out_features": ["stem", "stem"]},
        {"out_indices": [4]},
        {"out_indices": [1, 0]},
        {"out_features": ["stem"], "out_indices": [2]},
    ],
)
def test_outputs_that_are_no_stages_of_the_network(outputs):
    message = r"out_features .* and out_indices .* of stem, stage1, stage2, stage3 \(indices from 0\)"
    with pytest.raises(EsViTArchitectureError, match=message) as raised:
        small_config(**outputs)
    assert all(str(value) in str(raised.value) for value in outputs.values())
    config = small_config()
    with pytest.raises(EsViTArchitectureError, match=message):
        config.set_output_features_output_indices(**{"out_features": None, "out_indices": None, **outputs})


@pytest.mark.parametrize("name", ["_out_features", "attribute_map", "model_type", "stage_names"])
def test_names_that_are_no_fields(name):
    with pytest.raises(EsViTArchitectureError, match=f"no field '{name}'; did you mean"):
        EsViTConfig.from_architecture("swin-tiny", **{name: None})


def test_region_grid_is_that_of_the_model():
    config = small_config()
    model = EsViTModel(config).eval()
    for height, width in ((64, 64), (65, 33), (4, 90), (47, 52)):
        rows, columns = config.region_grid(height, width)
        assert model(torch.zeros(1, 3, height, width)).last_hidden_state.shape[1] == rows * columns
