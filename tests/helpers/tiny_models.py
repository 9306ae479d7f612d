# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Describes models of each family that are built in milliseconds, and the files that travel with any model."""

from modeling_esvit import EsViTConfig


HEADS = {"num_prototypes": 16, "head_hidden_size": 12, "head_bottleneck_size": 8}
VIL = {
    **{"architecture": "vil", "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 3},
    **{"patch_strides": [4, 2], "sparse_stages": [1, 0], "global_tokens": [1, 1], "image_size": 32},
}
VIT = {"architecture": "vit", "embed_dim": 16, "depths": [2], "num_heads": [2], "patch_size": 8, "image_size": 32}
CVT = {
    **{"architecture": "cvt", "embed_dim": 8, "stage_dims": [8, 16], "depths": [1, 1], "num_heads": [1, 2]},
    **{"patch_kernels": [7, 3], "patch_strides": [4, 2], "patch_paddings": [2, 1], "window_size": 4, "image_size": 32},
}
# Backbones of transformers, by the fields of their `backbone_config`:
RESNET = {
    **{"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1]},
    "layer_type": "basic",
}
PVT = {
    "model_type": "pvt",
    **{"hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4], "image_size": 64},
    **{"mlp_ratios": [2, 2, 2, 2], "depths": [1, 1, 1, 2]},
}

CODE = [
    *("attention.py", "auto_backbone.py", "backbone_probe.py", "batch_norm.py", "configuration_esvit.py", "cvt.py"),
    *("errors.py", "families.py", "family.py", "modeling_esvit.py", "projection_head.py", "pvt_backbone.py", "swin.py"),
    *("tokens.py", "vil.py", "vil_architecture.py", "vil_attention.py", "vit.py", "windows.py"),
]


def small_config(**fields) -> EsViTConfig:
    """Returns a Swin of two stages for images of 32 pixels."""
    sizes = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    return EsViTConfig(**{**sizes, **HEADS, **fields})


def auto_config(fields: dict, **others) -> EsViTConfig:
    """Returns the configuration of a backbone of transformers, for images of 64 pixels."""
    return EsViTConfig(**{"architecture": "auto", "backbone_config": fields, "image_size": 64, **HEADS, **others})
