# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Describes models of each family that are built in milliseconds, and the files that travel with any model."""

from pathlib import Path

import torch

from modeling_esvit import EsViTConfig, EsViTForPreTraining


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
RESNET_BASIC = {
    **{"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1]},
    "layer_type": "basic",
}
PVT = {
    "model_type": "pvt",
    **{"hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4], "image_size": 64},
    **{"mlp_ratios": [2, 2, 2, 2], "depths": [1, 1, 1, 2]},
}
FOUR = {"depths": [1, 1, 1, 1]}
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [16, 32, 48, 64], **FOUR}
HIERA = {"model_type": "hiera", "embed_dim": 8, "image_size": [64, 64], "num_heads": [1, 1, 2, 4], **FOUR}
SWIN_V2 = {
    "model_type": "swinv2",
    "embed_dim": 8,
    "num_heads": [1, 1, 2, 4],
    "window_size": 4,
    "image_size": 32,
    **FOUR,
}
DINO_V2 = {
    "model_type": "dinov2",
    **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 8},
}
DINO_V2_REGISTERS = {**DINO_V2, "model_type": "dinov2_with_registers", "num_register_tokens": 4}
DINO_V3 = {**DINO_V2, "model_type": "dinov3_vit", "intermediate_size": 32, "num_register_tokens": 4}
DINO_V3_CONVNEXT = {"model_type": "dinov3_convnext", "hidden_sizes": [8, 16, 24, 32], **FOUR}
BACKBONES = {
    "resnet": RESNET,
    "pvt_v2": {"model_type": "pvt_v2", "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4], **FOUR},
    "pvt": PVT,
    "convnextv2": {"model_type": "convnextv2", "hidden_sizes": [8, 16, 24, 32], **FOUR},
    "hiera": HIERA,
    "focalnet": {"model_type": "focalnet", "embed_dim": 8, "hidden_sizes": [8, 16, 32, 64], **FOUR},
    "swinv2": SWIN_V2,
    "dinov2": DINO_V2,
    "timm": {"model_type": "timm_backbone", "backbone": "resnet18"},
}

CODE = [
    *("attention.py", "auto_backbone.py", "backbone_probe.py", "batch_norm.py", "configuration_esvit.py", "cvt.py"),
    *(
        "errors.py",
        "families.py",
        "family.py",
        "field_values.py",
        "model_outputs.py",
        "modeling_esvit.py",
        "projection_head.py",
    ),
    *("pvt_backbone.py", "swin.py", "swin_attention.py"),
    *("tokens.py", "vil.py", "vil_architecture.py", "vil_attention.py", "vil_embedding.py", "vit.py", "windows.py"),
]


def small_config(**fields) -> EsViTConfig:
    """Returns a Swin of two stages for images of 32 pixels."""
    sizes = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    return EsViTConfig(**{**sizes, **HEADS, **fields})


def auto_config(fields: dict, **others) -> EsViTConfig:
    """Returns the configuration of a backbone of transformers, for images of 64 pixels."""
    return EsViTConfig(**{"architecture": "auto", "backbone_config": fields, "image_size": 64, **HEADS, **others})


def save_with_heads(folder: Path, **fields) -> EsViTForPreTraining:
    """Writes a small Swin with heads and centres that are not zero. Returns it."""
    torch.manual_seed(1)
    model = EsViTForPreTraining(small_config(norm_last_layer=False, **fields)).eval()
    torch.nn.init.normal_(model.view_center)
    torch.nn.init.normal_(model.region_center)
    model.save_pretrained(folder)
    return model
