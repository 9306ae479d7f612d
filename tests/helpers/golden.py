# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Loads golden tensors: what the MIT-licensed original (microsoft/esvit) computes on small models.

`make_fixtures.py` wrote them.

Weights are not stored: the originals were drawn from numpy's `RandomState` (whose stream numpy keeps for ever), so the
fixtures hold the seed and the original's parameters in the order of the draws, and the weights are drawn again, bit for
bit. Large outputs are thinned, see [`thin`].
"""

import json
import math
import re

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from modeling_esvit import EsViTConfig, EsViTForPreTraining
from tests.helpers.paths import FIXTURES


THINNED = re.compile(r"\.b0\.|^mc(_train)?\.(head_dense|fea)$")
POSITIONAL = re.compile(r"relative_position_bias(_table)?$|cls_token$|^pos_embed$")
COTANGENT_SEED = 101


def load(name: str) -> dict[str, torch.Tensor]:
    """Loads the tensors of `NAME.safetensors`, or of its parts `NAME.PART.safetensors`."""
    files = [*FIXTURES.glob(f"{name}.safetensors"), *FIXTURES.glob(f"{name}.*.safetensors")]
    if not files:
        raise FileNotFoundError(f"No fixture {name!r} in {FIXTURES}.")
    return {key: tensor for file in files for key, tensor in load_file(file).items()}


def metadata(name: str) -> dict:
    """Reads the JSON values in the header of a fixture of one file."""
    with safe_open(FIXTURES / f"{name}.safetensors", "pt") as file:
        return {key: json.loads(value) for key, value in file.metadata().items()}


def inputs() -> dict[str, torch.Tensor]:
    """Loads normalised images by their original names; `x224` and `x96` are the first global and local crops."""
    images = {name: image.float() for name, image in load("golden_inputs").items()}
    return {**images, "x224": images["g0"], "x96": images["l0"]}


def crop_groups() -> list[torch.Tensor]:
    """Loads the multi-crop input of the golden outputs: two global crops and four local ones of two images."""
    images = inputs()
    return [torch.cat([images[f"g{i}"] for i in range(2)]), torch.cat([images[f"l{i}"] for i in range(4)])]


def thin(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """Keeps every fifth token, query or region row of an output that is stored thinned, and any other output whole."""
    return tensor[..., ::5, :] if tensor.ndim > 1 and THINNED.search(key) else tensor


def to_original_key(key: str) -> str:
    """Returns the original name of a parameter of [`EsViTForPreTraining`]."""
    for ours, original in (("esvit.encoder.", ""), ("view_head.", "head."), ("region_head.", "head_dense.")):
        if key.startswith(ours):
            return original + key.removeprefix(ours)
    raise KeyError(f"The original has no {key!r}.")


def to_pretraining_keys(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Renames original keys to those of [`EsViTForPreTraining`], and leaves out the index buffers."""

    def rename(key: str) -> str:
        for original, ours in (("head_dense.", "region_head."), ("head.", "view_head.")):
            if key.startswith(original):
                return ours + key.removeprefix(original)
        return f"esvit.encoder.{key}"

    return {rename(key): value for key, value in weights.items() if not key.endswith("relative_position_index")}


def draw_weights(
    parameters: list[tuple[str, list[int]]], seed: int, statistics: list[tuple[str, list[int]]] | None = None
) -> dict[str, torch.Tensor]:
    """Draws the weights for (original key, shape) in the original's order: nothing is zero or symmetric. After
    them, from the same stream, running `statistics` of BatchNorms.
    """
    stream = np.random.RandomState(seed)
    weights = {}
    for key, shape in parameters:
        value = torch.from_numpy(stream.randn(*shape).astype(np.float32))
        if key.endswith("weight_g"):
            value = 1 + 0.2 * value
        elif POSITIONAL.search(key):
            value = 0.5 * value
        elif key.endswith(".bias"):
            value = 0.3 * value
        elif len(shape) == 1:
            value = 1 + 0.3 * value
        else:
            value = value / math.sqrt(math.prod(shape[1:]))
        weights[key] = value
    for key, shape in statistics or []:
        is_mean = key.endswith("running_mean")
        value = 0.3 * stream.randn(*shape) if is_mean else stream.uniform(0.5, 1.5, shape)
        weights[key] = torch.from_numpy(value.astype(np.float32))
    return weights


def compute_logits(output) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns the logits of views and regions; None of a model without a region head."""
    view = output.view_embeddings @ output.view_prototypes.T
    if output.region_embeddings is None:
        return view, None
    return view, output.region_embeddings @ output.region_prototypes.T


def cotangents(
    view_rows: int, region_rows: int, num_prototypes: int, seed: int = COTANGENT_SEED
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws the factors of the view and region logits in the loss whose gradients are golden."""
    stream = np.random.RandomState(seed)
    view = stream.randn(view_rows, num_prototypes).astype(np.float32)
    region = stream.randn(region_rows, num_prototypes).astype(np.float32)
    return torch.from_numpy(view), torch.from_numpy(region)


def swin_fields(original: dict) -> dict:
    names = ("patch_size", "embed_dim", "depths", "num_heads", "window_size", "mlp_ratio")
    return {name: original[name] for name in names} | {
        "image_size": original["img_size"],
        "layer_norm_eps": original["ln_eps"],
    }


def vit_fields(original: dict) -> dict:
    return {name: original[name] for name in ("patch_size", "embed_dim", "mlp_ratio", "qkv_bias")} | {
        "architecture": "vit",
        "image_size": original["img_size"],
        "layer_norm_eps": original["ln_eps"],
        "depths": [original["depth"]],
        "num_heads": [original["num_heads"]],
    }


BACKBONES = {"swin": swin_fields, "vit": vit_fields}


def pretraining_model(name: str, attention: str, region_head: bool = True) -> EsViTForPreTraining:
    """Builds a golden model with its weights, in evaluation mode."""
    header = metadata(name)
    original = header["config"]
    config = EsViTConfig(
        **BACKBONES[original["arch"]](original),
        num_prototypes=original["dinohead"]["out_dim"],
        head_hidden_size=original["dinohead"]["hidden_dim"],
        head_bottleneck_size=original["dinohead"]["bottleneck_dim"],
        norm_last_layer=original["dinohead"].get("norm_last_layer", True),
        region_head=region_head,
    )
    model = EsViTForPreTraining(config).eval()
    model.set_attn_implementation(attention)
    weights = to_pretraining_keys(draw_weights(header["parameters"], header["seed"]))
    weights = {key: value for key, value in weights.items() if region_head or not key.startswith("region_head.")}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or not set(missing) <= {"view_center", "region_center"}:
        raise KeyError(f"{name}: missing {missing}, unexpected {unexpected}")
    return model
