# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds out what a backbone of transformers can do: its stages, and the map that it makes of an image.

It is asked on the meta device. No weights are made and nothing is computed, so an answer takes a fraction of a second,
once for each backbone and size.
"""

import functools
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import CONFIG_MAPPING, AutoBackbone, AutoConfig
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING, MODEL_FOR_BACKBONE_MAPPING_NAMES
from transformers.utils import CONFIG_NAME, cached_file

from .errors import EsViTError
from .pvt_backbone import EsViTPvtConfig


# Errors that the code of a model raises for a size that it was not written for.
SIZE_FAILURES = (ArithmeticError, AssertionError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)
SIZE_STEP, LARGER_SIZES = 32, 4  # pixels between the sizes that are tried instead, and how many these are
# Fields that tell of the model that a configuration was saved with. A backbone has the type of the model around it.
BOOKKEEPING = ("_name_or_path", "architectures", "auto_map", "dtype", "transformers_version")
TIMM, TIMM_PREFIX = "timm_backbone", "timm:"
TIMM_FOLDER = "local-dir:"  # what timm calls a network in a folder
TIMM_HUB = re.compile("hf[-_]hub:")  # and one on the Hub, with a revision behind @
FREE_OF_TIMM = ("in_chans", "num_classes", "global_pool")  # arguments of a network of timm that its maps do not need
# Models of transformers without a backbone of their own there, and the type of the one that is here.
BACKBONES_HERE = {"pvt": EsViTPvtConfig.model_type}


class EsViTBackboneError(EsViTError, ValueError):
    """Raised when a backbone does not exist, or cannot do what is asked of it."""


def resolve_backbone(backbone: str | dict | PreTrainedConfig) -> PreTrainedConfig:
    """Returns the configuration of a backbone, as it will be after saving and loading.

    Args:
        backbone: a configuration, its fields as a dict with `model_type`, the name of a model on the Hub, a model
            folder, or a `config.json`; `timm:` and a name that timm knows.

    Raises:
        EsViTBackboneError: transformers has no backbone of this type.
        OSError: there is no such model.
    """
    if isinstance(backbone, str):
        backbone = find_backbone(backbone)
    fields = backbone.to_dict() if isinstance(backbone, PreTrainedConfig) else backbone
    check_type(fields)
    model_type = BACKBONES_HERE.get(fields["model_type"], fields["model_type"])
    return read_back(read_back({**fields, "model_type": model_type}).to_dict())  # twice: also what `fields` left out


def name_backbone(config: PreTrainedConfig) -> str:
    """Returns the name of a backbone's network: timm's own, or the type of a model of transformers."""
    if config.model_type == TIMM:
        return config.backbone.rpartition("/")[2]  # it may be a folder or a name on the Hub, whose last part is enough
    return config.model_type.removeprefix("esvit_")


def name_network(config: PreTrainedConfig) -> str:
    """Returns the name of the network of a model, as people know it."""
    backbone = getattr(config, "backbone_config", None)
    if config.model_type == "esvit" and backbone is not None:
        return name_backbone(backbone)
    return getattr(config, "architecture", config.model_type)


def read_back(fields: dict[str, Any]) -> PreTrainedConfig:
    """Returns a configuration with lists for tuples: some backbones take only what a file can hold."""
    fields = json.loads(json.dumps(fields))
    return AutoConfig.for_model(**{name: value for name, value in fields.items() if name not in BOOKKEEPING})


def find_backbone(name: str) -> dict | PreTrainedConfig:
    """Returns the configuration of a named model, or the fields of one that timm knows.

    Raises:
        EsViTBackboneError: its `config.json` holds no fields, or those of no backbone.
        OSError: there is no such folder.
    """
    if name.startswith(TIMM_PREFIX):
        return {"model_type": TIMM, "backbone": find_timm_name(name.removeprefix(TIMM_PREFIX))}
    try:
        fields = PreTrainedConfig.get_config_dict(name)[0]
    except TypeError as error:  # transformers expects a dict in every config.json
        message = f"backbone_config must be a configuration, a dict or a name, got {name!r}, which holds no fields"
        raise EsViTBackboneError(f"{message}: {error}.") from error
    check_type(fields)
    return AutoConfig.from_pretrained(name, trust_remote_code=False)


def find_timm_name(name: str) -> str:
    """Returns the name by which timm knows a network, also one in a folder, which nobody else has, or on the Hub.

    Raises:
        EsViTBackboneError: its `config.json` names none, or one that its name alone does not describe.
        OSError: there is no such file.
    """
    if TIMM_HUB.match(name):
        repository, _, revision = TIMM_HUB.sub("", name).partition("@")
        path = Path(str(cached_file(repository, CONFIG_NAME, revision=revision or None)))
    elif name.startswith(TIMM_FOLDER):
        path = Path(name.removeprefix(TIMM_FOLDER), CONFIG_NAME)
    else:
        return name
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        architecture, arguments = fields["architecture"], fields.get("model_args") or {}
        own = {argument: value for argument, value in arguments.items() if argument not in FREE_OF_TIMM}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise EsViTBackboneError(f"{path} does not describe a network of timm ({error!r}).") from error
    if own or not isinstance(architecture, str):
        raise EsViTBackboneError(
            f"{path} describes {architecture!r} with {own}. A backbone of timm is known by its name alone: save one "
            "without such arguments."
        )
    return architecture


def check_type(fields: Any) -> None:
    """Checks that these are the fields of a backbone that transformers knows.

    Raises:
        EsViTBackboneError: they are not.
    """
    if not isinstance(fields, dict):
        raise EsViTBackboneError(f"backbone_config must be a configuration, a dict or a name, got {fields!r}.")
    model_type = fields.get("model_type")
    if model_type == "esvit":
        raise EsViTBackboneError(
            "An EsViT is no backbone of another one. Load it by its own name; to go on training it use --init_from."
        )
    if isinstance(model_type, str) and model_type in CONFIG_MAPPING:
        if model_type in BACKBONES_HERE or CONFIG_MAPPING[model_type] in MODEL_FOR_BACKBONE_MAPPING:
            return
    if "auto_map" in fields:
        raise EsViTBackboneError(
            f"A backbone of type {model_type!r} needs code that comes with it, which is not run here, nor would it "
            "travel with the trained model. Import its classes yourself, and register them before this call by "
            f"AutoConfig.register({model_type!r}, ...) and AutoBackbone.register(...)."
        )
    known = ", ".join([*MODEL_FOR_BACKBONE_MAPPING_NAMES, *BACKBONES_HERE])
    raise EsViTBackboneError(f"transformers has no backbone of type {model_type!r}; it has: {known}.")


def describe_backbone(config: PreTrainedConfig) -> str:
    """Returns all that decides how a backbone computes, as text."""
    return json.dumps(config.to_dict(), sort_keys=True)


@functools.lru_cache(maxsize=8)
def build_on_meta(text: str) -> PreTrainedModel:
    """Returns a backbone without weights, built from its [`describe_backbone`].

    Raises:
        EsViTBackboneError: it cannot be built.
    """
    fields = json.loads(text)
    model_type = fields.pop("model_type")
    try:
        with torch.device("meta"):
            model = AutoBackbone.from_config(AutoConfig.for_model(model_type, **fields))
        return model.to("meta").eval()  # the code of some makes parameters elsewhere, whatever the device
    except (ImportError, *SIZE_FAILURES) as error:
        raise EsViTBackboneError(f"The backbone {model_type} cannot be built: {error}") from error


def can_recompute(model: nn.Module) -> bool:
    """Returns whether blocks can be computed again in the backward pass (gradient checkpointing).

    BatchNorms of a backbone would then move their running statistics twice.
    """
    supported = bool(model.supports_gradient_checkpointing)
    return supported and not any(isinstance(module, _BatchNorm) for module in model.modules())


def list_backbone_stages(config: PreTrainedConfig) -> dict[str, int]:
    """Returns the width of each stage of a backbone by its name, from the stem on if it has one."""
    model: Any = build_on_meta(describe_backbone(config))
    return dict(zip(model.stage_names, model.num_features, strict=True))


@torch.no_grad()
def compute_map_shape(model: Any, height: int, width: int) -> tuple[int, ...]:
    """Returns the shape of the last map of an image. Raises whatever the code of the model raises."""
    images = torch.empty(1, getattr(model.config, "num_channels", 3), height, width, device="meta")
    return tuple(model(images).feature_maps[-1].shape)


def suggest_size(model: Any, height: int, width: int) -> str:
    """Returns words on a size that a model takes: the next larger square, or the size it was built for.

    Some models need sides that are multiples of several patches.
    """
    larger = SIZE_STEP * (max(height, width) // SIZE_STEP + 1)
    for side in range(larger, larger + LARGER_SIZES * SIZE_STEP, SIZE_STEP):
        try:
            compute_map_shape(model, side, side)
        except SIZE_FAILURES:
            continue
        return f"; it takes {side} x {side}"
    size = find_built_size(model.config)
    return "" if size is None else f"; it was built for {size[0]} x {size[1]}"


@functools.lru_cache(maxsize=1024)
def compute_last_map(text: str, height: int, width: int) -> tuple[int, int, int]:
    """Returns the shape `(C, rows, columns)` of the last map of an image of `height` x `width` pixels.

    Raises:
        EsViTBackboneError: the backbone cannot take such an image, or its last output is no map.
    """
    model: Any = build_on_meta(text)
    name = model.config.model_type
    try:
        shape = compute_map_shape(model, height, width)
    except SIZE_FAILURES as error:
        raise EsViTBackboneError(
            f"The backbone {name} cannot take images of {height} x {width} pixels{suggest_size(model, height, width)} "
            f"({type(error).__name__}: {error})."
        ) from error
    if len(shape) != 4:
        raise EsViTBackboneError(f"The backbone {name} gives no feature map, but {list(shape)}.")
    if shape[1] != model.num_features[-1]:
        raise EsViTBackboneError(
            f"The backbone {name} gives maps of {list(shape)}, whose second dimension should be its "
            f"{model.num_features[-1]} channels."
        )
    return shape[1], shape[2], shape[3]


@functools.lru_cache(maxsize=64)
def trace_parameters(text: str) -> tuple[str, ...]:
    """Returns the names of the parameters that the last map depends on, in the order in which a forward pass uses them.

    Raises:
        EsViTBackboneError: see [`compute_last_map`].
    """
    model: Any = build_on_meta(text)
    height, width = find_built_size(model.config) or (224, 224)
    compute_last_map(text, height, width)
    images = torch.empty(1, getattr(model.config, "num_channels", 3), height, width, device="meta")
    met: list[str] = []  # gradients arrive in the reverse of that order
    hooks = [
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: met.append(name))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]
    with torch.enable_grad():
        model(images).feature_maps[-1].sum().backward()
    for hook in hooks:
        hook.remove()
    model.zero_grad()
    return tuple(reversed(met))


def find_unused_parameters(text: str) -> list[str]:
    """Returns the names of parameters that the last map does not depend on, such as a classifier's norm.

    Raises:
        EsViTBackboneError: see [`compute_last_map`].
    """
    used = set(trace_parameters(text))
    return [name for name, _ in build_on_meta(text).named_parameters() if name not in used]


def find_built_size(config: PreTrainedConfig) -> tuple[int, int] | None:
    """Returns the height and width that a backbone says it was built for, if it says so."""
    size = getattr(config, "image_size", None)
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else (size[0], size[1])
