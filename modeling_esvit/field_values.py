# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the values of a configuration that no network of any family can have."""

import difflib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers.activations import ACT2FN

from .family import EsViTArchitectureError


if TYPE_CHECKING:
    from .configuration_esvit import EsViTConfig


INT32 = 2**31 - 1  # the largest index of kernels that count in int32
# The largest W whose (4 W - 1)^2 position biases, which chunks of a ViL have, can be indexed by int32. As the bound of
# every count it also keeps the size of a tensor, a product of four of them at most, within int64.
LARGEST_COUNT = 11_585
SMALLEST_COUNTS = {
    **dict.fromkeys(("patch_size", "num_channels", "embed_dim", "window_size", "depths", "num_heads"), 1),
    **dict.fromkeys(("stage_dims", "patch_kernels", "patch_strides", "num_prototypes", "head_hidden_size"), 1),
    **dict.fromkeys(("head_bottleneck_size", "head_num_layers"), 1),
    **dict.fromkeys(("patch_paddings", "global_tokens"), 0),
}
LARGEST_COUNTS = {**dict.fromkeys(SMALLEST_COUNTS, LARGEST_COUNT), "num_prototypes": INT32}
RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate")
POSITIVE = ("initializer_range", "layer_norm_eps")
SMALLEST_FLOAT = torch.finfo(torch.float32).tiny  # below it, float32 rounds towards zero


def check_values(config: "EsViTConfig") -> None:
    """Checks each field on its own, before anything is computed from it.

    Raises:
        EsViTArchitectureError: a field has a value that cannot be; the message names both.
    """
    for name, smallest in SMALLEST_COUNTS.items():
        if (value := getattr(config, name)) is not None:
            require_range(name, value, smallest, LARGEST_COUNTS[name])
    for name in RATES:
        if not 0 <= getattr(config, name) < 1:
            raise EsViTArchitectureError(f"{name} must be at least 0 and below 1, got {getattr(config, name)}.")
    for name in POSITIVE:
        if not SMALLEST_FLOAT <= getattr(config, name) <= 1:
            raise EsViTArchitectureError(f"{name} must be above 0 and at most 1, got {getattr(config, name)}.")
    check_image_size(config.image_size)
    check_activation(config.hidden_act)


def require_range(name: str, value: int | Sequence[int], smallest: int, largest: int) -> None:
    """Checks a count, or a list with one for each stage."""
    counts = [value] if isinstance(value, int) else list(value)
    subject, place = (name, f", got {value}") if isinstance(value, int) else (f"{name} {counts}", " in every stage")
    if not counts:
        raise EsViTArchitectureError(f"{subject} must have one entry per stage.")
    if min(counts) < smallest:
        raise EsViTArchitectureError(f"{subject} must be at least {smallest}{place}.")
    if max(counts) > largest:
        raise EsViTArchitectureError(f"{subject} must be at most {largest}{place}.")


def check_image_size(size: int | Sequence[int]) -> None:
    """Checks a side, or a pair of height and width, in pixels."""
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2:
        raise EsViTArchitectureError(f"image_size must be a number or a (height, width) pair, got {size}.")
    if min(sides) < 1 or math.prod(sides) > INT32:
        raise EsViTArchitectureError(
            f"image_size must be at least 1 on each side and have at most {INT32} pixels in all, got {size}."
        )


def check_activation(name: str) -> None:
    """Checks that transformers has an activation function of this name."""
    if name not in ACT2FN:
        nearest = difflib.get_close_matches(name.lower(), list(ACT2FN), n=3, cutoff=0.0)
        raise EsViTArchitectureError(
            f"hidden_act {name!r} is no activation function of transformers; the nearest are {', '.join(nearest)}."
        )


def check_mlp_widths(config: "EsViTConfig") -> None:
    """Checks that the MLP of each stage has a width that can be."""
    for width in config.stage_widths():
        if width > INT32 or not 1 <= width * config.mlp_ratio <= INT32:
            raise EsViTArchitectureError(
                f"mlp_ratio {config.mlp_ratio} times the width {width} of a stage must be at least 1 and at most "
                f"{INT32}."
            )
