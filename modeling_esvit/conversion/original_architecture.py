# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Infers the architecture of a network of the original from the names and shapes of its tensors."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch

from modeling_esvit.configuration_esvit import (
    EsViTArchitectureError,
    EsViTConfig,
    check_field,
    find_published_name,
    rename_fields,
)
from modeling_esvit.conversion import ConversionError
from modeling_esvit.conversion.original_families import ORIGINAL_FAMILIES, find_family, preview, shape_of
from modeling_esvit.families import ARCHITECTURES, FAMILIES, require_fields
from modeling_esvit.field_values import check_image_size


# Fields that tensors may not tell: in words, and how to give them.
UNTOLD = {
    "num_heads": ("the attention heads", "num_heads (--set num_heads=[1,3,6,12], say, with one for each stage)"),
    "window_size": ("the side of a chunk", "window_size (--set window_size=7, say)"),
}


def infer_config(state_dict: Mapping[str, torch.Tensor], image_size: int | None = None, **overrides) -> EsViTConfig:
    """Infers the configuration of a network from the shapes of its tensors (on any device, `meta` too).

    Args:
        state_dict: original names, as from [`load_original_state_dict`].
        image_size: construction size, where the shapes leave a choice; the default is 224 if that fits.
        overrides: what shapes cannot tell, such as `norm_last_layer`, or the number of heads of a CvT. A whole number
            will do for a fraction.

    Raises:
        ConversionError: a tensor that decides is missing or has an impossible shape, the image size is not decided, or
            the fields contradict each other.
    """
    family = find_family(state_dict)
    if family is None:
        raise ConversionError(f"None of the tensors is of a known architecture: {preview(state_dict)}.")
    check_overrides(family, image_size, overrides)
    overrides = convert_floats(rename_fields(overrides))
    check_values(state_dict, family)
    inferred = {
        "architecture": family,
        **ORIGINAL_FAMILIES[family].fields(state_dict, image_size),
        **infer_projection_heads(state_dict),
    }
    check_told(inferred, overrides)
    fields = {**inferred, **overrides}
    try:
        config = EsViTConfig(**fields)
        name = find_published_name(config)
        return config if name is None else EsViTConfig(**{**ARCHITECTURES[name], **fields})
    except EsViTArchitectureError as error:
        raise ConversionError(
            f"The shapes of the tensors, or fields that were set, contradict each other: {error}"
        ) from error


def convert_floats(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields, with a float for each whole number that is given for a float."""
    floats = {field.name for field in dataclasses.fields(EsViTConfig) if isinstance(field.default, float)}
    return {
        # Through text, as float() refuses a whole number that no float can hold instead of returning infinity.
        name: float(str(value)) if name in floats and type(value) is int else value
        for name, value in overrides.items()
    }


def check_overrides(family: str, image_size: int | None, overrides: Mapping[str, Any]) -> None:
    """Checks that a family has the fields that were set, whatever their values, and that there can be such images.

    Raises:
        ConversionError: it lacks one, or a field cannot be set, or the size cannot be; the message says why.
    """
    name = ORIGINAL_FAMILIES[family].name or FAMILIES[family].name
    if overrides.get("architecture", family) != family:
        raise ConversionError(
            f"The tensors are of a {name}, so architecture cannot be {overrides['architecture']!r}; leave it out."
        )
    if "num_hidden_layers" in overrides:
        raise ConversionError(f"num_hidden_layers of a {name} follows from its tensors; leave it out.")
    try:
        for field in overrides:
            check_field(field)
        require_fields(family, rename_fields(overrides))
        if image_size is not None:
            check_image_size(image_size)
    except EsViTArchitectureError as error:
        raise ConversionError(str(error)) from error


def check_values(state_dict: Mapping[str, torch.Tensor], family: str) -> None:
    """Checks that all tensors have values, but for those that the original saves empty.

    Raises:
        ConversionError: some have none; the message names them.
    """
    expected = ORIGINAL_FAMILIES[family].empty(state_dict)
    empty = [name for name, tensor in state_dict.items() if not tensor.numel() and name not in expected]
    if empty:
        raise ConversionError(f"These tensors have no values: {', '.join(empty)}.")


def check_told(inferred: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
    """Checks that the tensors tell every field that was not set.

    Raises:
        ConversionError: some are; the message says how to give them.
    """
    untold = [name for name in UNTOLD if name not in overrides and inferred.get(name, "") is None]
    if untold:
        parts, ways = (" and ".join(words) for words in zip(*(UNTOLD[name] for name in untold), strict=True))
        family = FAMILIES[inferred["architecture"]].name
        raise ConversionError(
            f"Tensors do not tell {parts} of a {family} of width {inferred['embed_dim']}; give {ways}."
        )


def infer_projection_heads(state_dict: Mapping[str, torch.Tensor]) -> dict:
    """Returns the fields of the projection heads; none if the network has no heads."""
    heads = {name.split(".")[0] for name in state_dict} & {"head", "head_dense"}
    if not heads:
        return {}
    head = min(heads)
    names = [name for name in state_dict if re.fullmatch(rf"{head}\.mlp\.\d+\.weight", name)]
    names = [name for name in names if state_dict[name].ndim == 2]  # not those of BatchNorms
    if not names:
        raise ConversionError(f"The tensors {head}.mlp.*.weight are missing.")
    linears = [state_dict[name].shape for name in sorted(names, key=lambda name: int(name.split(".")[2]))]
    fields = {
        "num_prototypes": shape_of(state_dict, f"{head}.last_layer.weight_[gv]", 2)[0],
        "head_num_layers": len(linears),
        "head_bottleneck_size": linears[-1][0],
        "head_batch_norm": any(name.startswith(f"{head}.") and name.endswith(".running_mean") for name in state_dict),
        "region_head": "head_dense" in heads,
    }
    return fields if len(linears) == 1 else {**fields, "head_hidden_size": linears[0][0]}
