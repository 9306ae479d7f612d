# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes EsViT's Swin in transformers' own `swin` format, which loads without this package and without remote code.

That format can carry a model whose windows are all of one size, for images of its construction size. Its patch
embedding and patch merging fix the epsilon of their LayerNorms at 1e-5 where EsViT has 1e-6. Since
LN(s x; s^2 eps) = LN(x; eps), the network is rewritten so that its residual stream is s = sqrt(1e-5 / 1e-6) times as
large: then every epsilon is 1e-5 and the outputs are the same; only the intermediate hidden states are s times ours.
"""

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, SwinConfig, SwinModel

from modeling_esvit.configuration_esvit import EsViTConfig
from modeling_esvit.conversion import ConversionError
from modeling_esvit.images.hub import find_reachable_model
from modeling_esvit.images.models import NoImageModelError, guard_weights, name_transformers_errors, read_fields
from modeling_esvit.modeling_esvit import EsViTModel, write_preprocessing
from modeling_esvit.storage.weight_bars import hide_weight_bars


NATIVE_EPS = 1e-5
TOLERANCE = (
    2e-5  # of the largest output: ten times the rounding in float32, a tenth of what a wrong mask or window does
)
SHARED_FIELDS = (
    *("image_size", "patch_size", "num_channels", "embed_dim", "depths", "num_heads", "window_size", "mlp_ratio"),
    *("qkv_bias", "hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate", "hidden_act"),
    *("use_absolute_embeddings", "initializer_range"),
)
NATIVE_NAMES = (
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "embeddings.norm."),
    (r"^patch_embed\.absolute_pos_embed$", "embeddings.position_embeddings"),
    (r"^layers\.", "encoder.layers."),
    (r"^norm\.", "layernorm."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.relative_position", ".attention.relative_position_bias.relative_position"),
)
# Everything that writes to the residual stream, and the patch projection, whose norm has the fixed epsilon too.
SCALED = re.compile(r"^patch_embed\.|\.attn\.proj\.|\.mlp\.fc2\.|\.downsample\.reduction\.")


def load_backbone(folder: str | Path) -> EsViTModel:
    """Loads the backbone of a model folder of this project, or of its name on the Hub, in float32.

    Raises:
        ConversionError: it holds another model, is damaged, or lacks tensors.
        OSError: it is no model folder, and none of this name can be had of the Hub.
    """
    folder = find_reachable_model(os.fspath(folder))
    with _name_errors(folder):
        model_type = read_fields(folder).get("model_type")
    if model_type != "esvit":
        raise ConversionError(f"{folder} holds a model of type {model_type!r}, not 'esvit'.")
    with _name_errors(folder), hide_weight_bars(), guard_weights(folder):
        loaded: Any = EsViTModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    model, loading = loaded
    if loading["missing_keys"]:
        raise ConversionError(f"{folder} lacks the tensors {', '.join(sorted(loading['missing_keys']))}.")
    return model


@contextmanager
def _name_errors(name: str) -> Iterator[None]:
    """Turns what transformers says of a damaged folder into an error of this room."""
    try:
        with name_transformers_errors(name):
            yield
    except NoImageModelError as error:
        if os.path.isdir(name):
            raise ConversionError(str(error)) from error
        raise


def compute_residual_scale(config: EsViTConfig) -> float:
    """Returns the factor s between the native hidden states and ours."""
    return math.sqrt(NATIVE_EPS / config.layer_norm_eps)


def find_native_obstacles(config: EsViTConfig) -> list[str]:
    """Returns why transformers' own Swin cannot carry a model of this configuration; nothing if it can."""
    if config.architecture != "swin":
        return [f"its architecture is {config.family.name}, and that format is of Swins alone"]
    obstacles = []
    num_stages = len(config.depths)
    for stage in range(num_stages):
        window, _ = config.stage_window(stage)
        if window != config.window_size:
            obstacles.append(
                f"stage {stage + 1} has window {window}, but that format gives every stage window {config.window_size}"
            )
    if not config.patch_norm:
        obstacles.append("the patch embedding has no LayerNorm, but in that format it always has one")
    sides = [config.image_size] * 2 if isinstance(config.image_size, int) else config.image_size
    unit = config.patch_size << (num_stages - 1)
    if any(side % unit for side in sides):
        obstacles.append(
            f"image_size {config.image_size} is no multiple of {unit}, and that format rounds odd maps up before it "
            "decides where windows are shifted"
        )
    return obstacles


def make_native_state_dict(model: EsViTModel) -> dict[str, torch.Tensor]:
    """Returns the backbone's tensors under transformers' names, with the residual stream scaled."""
    scale = compute_residual_scale(model.config)
    tensors = {}
    for name, tensor in model.encoder.state_dict().items():
        value = tensor * scale if SCALED.search(name) else tensor
        for pattern, replacement in NATIVE_NAMES:
            name = re.sub(pattern, replacement, name)
        if ".attn.qkv." in name:
            for part, third in zip("qkv", value.chunk(3), strict=True):
                tensors[name.replace(".attn.qkv.", f".attention.{part}_proj.")] = third.contiguous()
        else:
            tensors[name] = value
    return tensors


def to_native(model: EsViTModel) -> SwinModel:
    """Returns the same network as a transformers `SwinModel`, in evaluation mode.

    Raises:
        ConversionError: that format cannot carry it; every reason is named.
    """
    obstacles = find_native_obstacles(model.config)
    if obstacles:
        raise ConversionError(f"transformers' Swin format cannot carry this model: {'; '.join(obstacles)}.")
    fields = {name: getattr(model.config, name) for name in SHARED_FIELDS}
    native = SwinModel(SwinConfig(**fields, layer_norm_eps=NATIVE_EPS))
    native.load_state_dict(make_native_state_dict(model))
    return native.eval()


def draw_images(config: EsViTConfig, num_images: int, size: tuple[int, int]) -> torch.Tensor:
    """Returns images of contrast 1/4 to 2, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(num_images, config.num_channels, *size, generator=generator)
    return images * torch.logspace(-2, 1, num_images, base=2.0).view(-1, 1, 1, 1)


def compare_outputs(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    """Returns the largest difference of outputs, relative to the largest value of each (at least 1); NaN if one is."""
    pairs = zip(ours, theirs, strict=True)
    return torch.stack([(a - b).abs().max() / a.abs().max().clamp(min=1) for a, b in pairs]).max().item()


@torch.no_grad()
def measure_difference(native: SwinModel, model: EsViTModel, num_images: int = 4) -> float:
    """Returns the largest difference of regions and view features, relative to the largest output (at least 1).

    Images are random, of the construction size and of contrast 1/4 to 2; precision is the models' own.
    """
    size = model.config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    images = draw_images(model.config, num_images, (height, width))
    ours, theirs = model.eval()(images), native.eval()(images)
    return compare_outputs(*((each.last_hidden_state, each.pooler_output) for each in (ours, theirs)))


def save_native(model: EsViTModel, folder: Path) -> float:
    """Writes `config.json`, `model.safetensors` and `preprocessor_config.json`, and compares what a user would load.

    Returns:
        The difference found, see [`measure_difference`].

    Raises:
        ConversionError: the format cannot carry the model, or what was written gives other outputs.
    """
    to_native(model).save_pretrained(folder)
    write_preprocessing(model.config, folder / "preprocessor_config.json")
    difference = measure_difference(AutoModel.from_pretrained(folder), model)
    if not difference <= TOLERANCE:
        raise ConversionError(
            f"The model in transformers' format differs from ours by {difference:.1e} of the largest output, more than "
            f"{TOLERANCE:.0e}, at its own image size; it was not kept."
        )
    return difference
