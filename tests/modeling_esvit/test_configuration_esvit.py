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


def test_region_grid_is_that_of_the_model():
    config = small_config()
    model = EsViTModel(config).eval()
    for height, width in ((64, 64), (65, 33), (4, 90), (47, 52)):
        rows, columns = config.region_grid(height, width)
        assert model(torch.zeros(1, 3, height, width)).last_hidden_state.shape[1] == rows * columns
