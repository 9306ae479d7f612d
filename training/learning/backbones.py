# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Prepares backbones of transformers for a run (`--architecture auto`, `resnet-50`), and checks what they can do."""

import copy
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from modeling_esvit import EsViTConfig, EsViTForPreTraining
from modeling_esvit.backbone_probe import (
    TIMM,
    TIMM_FOLDER,
    TIMM_PREFIX,
    EsViTBackboneError,
    build_on_meta,
    can_recompute,
    describe_backbone,
    resolve_backbone,
)
from modeling_esvit.images.model_limits import bound_build
from modeling_esvit.images.model_places import check_files
from modeling_esvit.images.models import FAILURES, guard_weights, read_fields, shorten_error
from training.options.errors import OptionError
from training.options.pretrain_options import PretrainOptions


def make_backbone_overrides(options: PretrainOptions, backbone: Any) -> dict[str, Any]:
    """Returns the fields of an [`EsViTConfig`] for the backbone of the options, or else that of the architecture.

    Raises:
        OptionError: There is no backbone of this name, or it has no stochastic depth.
        EsViTBackboneError: See [`resolve_backbone`].
    """
    try:
        with bound_build():
            check_stored_fields(options.backbone)
            config = resolve_backbone(options.backbone or backbone)
    except EsViTBackboneError:
        raise
    except OSError as error:
        raise OptionError(
            f"backbone {options.backbone!r} is neither a folder nor a config.json, and as a model on the Hub: {error}"
        ) from error
    except FAILURES as error:
        raise OptionError(f"backbone {options.backbone!r} cannot be used: {shorten_error(error)}") from error
    if options.drop_path_rate is not None:
        if not hasattr(config, "drop_path_rate"):
            raise OptionError(f"drop_path_rate: the backbone {config.model_type} has no stochastic depth.")
        config.drop_path_rate = options.drop_path_rate
    return {"backbone_config": config}


def check_stored_fields(name: str | None) -> None:
    """Checks the fields in the configuration of a named backbone; `resolve_backbone` says what else is wrong with it.

    Raises:
        ModelLimitError, ModelPlaceError: See `read_fields`.
        OSError: There is no such model.
    """
    if name is None or name.startswith(TIMM_PREFIX):
        return
    with suppress(TypeError, AttributeError):  # of a file that holds no fields
        read_fields(name)


def check_backbone(config: EsViTConfig, options: PretrainOptions) -> None:
    """Checks that the backbone can do what the options ask of it.

    Raises:
        OptionError: It cannot recompute its blocks or has no fused attention, or `backbone` has no weights.
    """
    model = build_on_meta(describe_backbone(config.backbone_config))
    if options.attn_implementation == "sdpa" and not model._supports_sdpa:
        raise OptionError(f"attn_implementation: {config.backbone_config.model_type} has no sdpa; use auto.")
    if options.backbone_weights and is_file(options.backbone) and config.backbone_config.model_type != TIMM:
        raise OptionError(
            f"backbone_weights: there are none in {options.backbone}; name a model's folder, or the Hub's."
        )
    if options.gradient_checkpointing and not can_recompute(model):
        made_for_it = model.supports_gradient_checkpointing
        reason = "whose BatchNorms would count each batch twice" if made_for_it else "which is not made for it"
        raise OptionError(f"gradient_checkpointing: not possible with {config.backbone_config.model_type}, {reason}.")


def check_crop_sizes(config: EsViTConfig, options: PretrainOptions) -> None:
    """Checks that the architecture can take the crops.

    Raises:
        OptionError: A crop is too small to have a region.
        EsViTBackboneError: The backbone cannot take crops of this size.
    """
    sizes = {"global_crop_size": [options.global_crop_size], "local_crop_sizes": list_local_sizes(options)}
    for name, size in ((name, size) for name, values in sizes.items() for size in values):
        try:
            grid = config.region_grid(size, size)
        except EsViTBackboneError as error:
            raise EsViTBackboneError(f"{name} {size}: {error}") from error
        if min(grid) < 1:
            raise OptionError(f"{name} {size}: a crop of so few pixels has no region in a {config.family.name}.")


def is_file(name: str | None) -> bool:
    """Returns whether `name` is an existing file."""
    return name is not None and Path(name).is_file()


def list_local_sizes(options: PretrainOptions) -> list[int]:
    """Returns the sizes of the sets of local crops that are not empty."""
    pairs = zip(options.local_crop_sizes, options.local_crops_numbers, strict=True)
    return [size for size, number in pairs if number]


def load_backbone_weights(model: EsViTForPreTraining, name: str) -> None:
    """Loads pretrained weights of a backbone into a model. transformers warns of some that `name` lacks.

    Raises:
        OptionError: There are no weights of this name, or they are of another network.
    """
    backbone = model.esvit.encoder.backbone
    try:
        if backbone.config.model_type == TIMM:
            source = copy.copy(backbone.config)
            source.backbone = name.removeprefix(TIMM_PREFIX)  # a folder, where the configuration has the network's name
            if source.backbone.startswith(TIMM_FOLDER):
                check_files(Path(source.backbone.removeprefix(TIMM_FOLDER)))
            backbone._backbone.load_state_dict(load_timm_weights(source))
        else:
            settings = {"config": backbone.config, "dtype": backbone.dtype, "output_loading_info": True}
            with guard_weights(name):
                loaded, report = type(backbone).from_pretrained(name, **settings)
            if set(report["missing_keys"]) >= {key for key, _ in loaded.named_parameters()}:
                raise OptionError(f"none of its tensors is one of a {backbone.config.model_type}.")
            backbone.load_state_dict(loaded.state_dict())
    except (OSError, *FAILURES) as error:  # a RuntimeError of timm, if it knows no weights
        raise OptionError(f"backbone_weights: {name!r} has none that can be read: {shorten_error(error)}") from error


def load_timm_weights(config: Any) -> dict[str, torch.Tensor]:
    """Returns the pretrained tensors of a network of timm, running statistics of BatchNorms included.

    `TimmBackbone.from_pretrained` sets these back to zeros and ones.
    """
    import timm  # only where a backbone of timm is used

    settings = {"features_only": config.features_only, "in_chans": config.num_channels}
    settings |= {"out_indices": config.out_indices, "output_stride": config.output_stride}
    return timm.create_model(config.backbone, pretrained=True, **settings).state_dict()


def remove_stochastic_depth(module: Any) -> None:
    """Removes stochastic depth from a module of transformers or timm, which draw it with probability `drop_prob`."""
    if type(module).__name__.endswith("DropPath"):
        module.drop_prob = 0.0
