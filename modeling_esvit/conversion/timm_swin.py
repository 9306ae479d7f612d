# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes EsViT's Swin as timm's `SwinTransformer`, for images of its construction size.

timm clips the window of each stage to its map, as EsViT does at its construction, so that window 14 fits too. All
LayerNorms have the epsilon 1e-5: the residual stream is scaled as for transformers' own format (`native_swin.py`).
Patch merging belongs to the stage after it.
"""

import copy
import re
from pathlib import Path
from typing import Any

import torch

from modeling_esvit.configuration_esvit import EsViTConfig, find_published_name
from modeling_esvit.conversion import ConversionError
from modeling_esvit.conversion.native_swin import SCALED, compute_residual_scale
from modeling_esvit.modeling_esvit import EsViTModel, describe_preprocessing


OTHER = "swin-tiny"  # whose entry of timm an architecture without a name takes, with its own sizes as arguments


def compute_timm_stages(config: EsViTConfig) -> list[tuple[tuple[int, int], tuple[int, int], tuple[int, int]]]:
    """Returns map, window and shift of each stage as timm computes them, each for rows and columns."""
    rows, columns = config.patch_grid()
    stages = []
    for _ in config.depths:
        sides = (rows, columns)
        window = (min(rows, config.window_size), min(columns, config.window_size))
        shift = tuple(config.window_size // 2 if side > config.window_size else 0 for side in sides)
        stages.append((sides, window, (shift[0], shift[1])))
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
    return stages


def find_timm_obstacles(config: EsViTConfig) -> list[str]:
    """Returns why timm's Swin cannot carry a model of this configuration; nothing if it can."""
    if config.architecture != "swin":
        return [f"its architecture is {config.family.name}; timm's Swin holds Swins"]
    obstacles = []
    if not config.patch_norm:
        obstacles.append("the patch embedding has no LayerNorm, but timm's always has one")
    if config.use_absolute_embeddings:
        obstacles.append("it adds position embeddings, which timm's does not")
    if config.hidden_act != "gelu":
        obstacles.append(f"hidden_act is {config.hidden_act!r}, but timm's is 'gelu'")
    for stage, (sides, window, shift) in enumerate(compute_timm_stages(config)):
        ours, our_shift = config.stage_window(stage)
        if (window, shift) != ((ours, ours), (our_shift, our_shift)):
            obstacles.append(
                f"stage {stage + 1} has window {ours} and shift {our_shift}, but timm's would have {window} and {shift}"
            )
        elif our_shift and any(side % ours for side in sides):
            obstacles.append(
                f"the map of stage {stage + 1}, {sides[0]} x {sides[1]}, is padded to multiples of {ours}, which timm "
                "does after the shift and EsViT before it"
            )
    return obstacles


def make_timm_arguments(config: EsViTConfig) -> dict[str, Any]:
    """Returns the arguments of `timm.create_model`, the first of them its `model_name`."""
    at_224 = copy.copy(config)
    at_224.image_size = 224
    name = find_published_name(at_224)
    height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
    arguments: dict[str, Any] = {
        "model_name": f"swin_{(name or OTHER).removeprefix('swin-')}_patch4_window7_224",
        "num_classes": 0,
        "img_size": [height, width],
        "window_size": config.window_size,
    }
    if name is not None:
        return arguments
    return arguments | {
        "patch_size": config.patch_size,
        "in_chans": config.num_channels,
        "embed_dim": config.embed_dim,
        "depths": list(config.depths),
        "num_heads": list(config.num_heads),
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
    }


def describe_timm_preprocessing(config: EsViTConfig) -> dict[str, Any]:
    """Returns the evaluation transform as timm writes it, for `timm.data.create_transform`."""
    transform = describe_preprocessing(config)
    height, width = transform["crop_size"]["height"], transform["crop_size"]["width"]
    return {
        "input_size": [config.num_channels, height, width],
        "crop_pct": max(height, width) / transform["size"]["shortest_edge"],
        "crop_mode": "center",
        "interpolation": "bicubic",
        "mean": transform["image_mean"],
        "std": transform["image_std"],
    }


def make_timm_state_dict(model: EsViTModel) -> dict[str, torch.Tensor]:
    """Returns the backbone's tensors under timm's names, with the residual stream scaled."""
    scale = compute_residual_scale(model.config)
    return {
        re.sub(r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample", name): (
            tensor * scale if SCALED.search(name) else tensor
        )
        for name, tensor in model.encoder.state_dict().items()
    }


def save_timm(model: EsViTModel, folder: Path) -> None:
    """Writes `model.safetensors` and timm's `config.json`.

    Raises:
        ConversionError: timm's Swin cannot carry the model; every reason is named.
    """
    import timm
    from timm.models import save_for_hf

    obstacles = find_timm_obstacles(model.config)
    if obstacles:
        raise ConversionError(f"timm's Swin cannot carry this model: {'; '.join(obstacles)}.")
    arguments = make_timm_arguments(model.config)
    theirs = timm.create_model(**arguments)
    theirs.load_state_dict(make_timm_state_dict(model))
    saved = {name: value for name, value in arguments.items() if name not in ("model_name", "num_classes")}
    cfg = {"pretrained_cfg": describe_timm_preprocessing(model.config)}
    save_for_hf(theirs, str(folder), model_config=cfg, model_args=saved, safe_serialization=True)


def load_timm(folder: Path) -> Any:
    """Loads the model of such a folder as users do, in evaluation mode."""
    import timm

    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
