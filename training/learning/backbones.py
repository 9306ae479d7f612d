# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""`--architecture auto` and `resnet-50`: backbones of transformers in a run. What one cannot do is said before training."""

from pathlib import Path
from typing import Any

from modeling_esvit import EsViTConfig, EsViTForPreTraining
from modeling_esvit.backbone_probe import (
    TIMM,
    EsViTBackboneError,
    can_recompute,
    description,
    on_meta,
    resolve_backbone,
)
from training.options.pretrain_options import OptionError, PretrainOptions


def backbone_overrides(options: PretrainOptions, backbone: Any) -> dict[str, Any]:
    """Fields of an [`EsViTConfig`] for the backbone that `options` (or else the architecture, as `backbone`) names.

    Raises:
        OptionError: there is no backbone of this name, or it has no stochastic depth. EsViTBackboneError: see
            [`resolve_backbone`].
    """
    try:
        config = resolve_backbone(options.backbone or backbone)
    except OSError as error:
        raise OptionError(
            f"backbone {options.backbone!r} is no folder or config.json; and as a model on the Hub: {error}"
        ) from error
    if options.drop_path_rate is not None:
        if not hasattr(config, "drop_path_rate"):
            raise OptionError(f"drop_path_rate: the backbone {config.model_type} has no stochastic depth.")
        config.drop_path_rate = options.drop_path_rate
    return {"backbone_config": config}


def check_backbone(config: EsViTConfig, options: PretrainOptions) -> None:
    """Raises:
    OptionError: it cannot recompute its blocks, has no fused attention, or `backbone` no weights.
    """
    model = on_meta(description(config.backbone_config))
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
    """Raises:
    OptionError: crops that are too small for the architecture.
    EsViTBackboneError: the backbone cannot take crops of such a size.
    """
    sizes = {"global_crop_size": [options.global_crop_size], "local_crop_sizes": used_local_sizes(options)}
    for name, size in ((name, size) for name, values in sizes.items() for size in values):
        try:
            grid = config.region_grid(size, size)
        except EsViTBackboneError as error:
            raise EsViTBackboneError(f"{name} {size}: {error}") from error
        if min(grid) < 1:
            raise OptionError(f"{name} {size}: crops of a {config.family.name} of so few pixels have no region.")


def is_file(name: str | None) -> bool:
    return name is not None and Path(name).is_file()


def used_local_sizes(options: PretrainOptions) -> list[int]:
    pairs = zip(options.local_crop_sizes, options.local_crops_numbers, strict=True)
    return [size for size, number in pairs if number]


def load_backbone_weights(model: EsViTForPreTraining, name: str) -> None:
    """Put pretrained weights of a backbone into a model; transformers warns of those that `name` lacks.

    Raises:
        OSError: there are none of this name.
    """
    backbone = model.esvit.encoder.backbone
    if backbone.config.model_type == TIMM:
        name = backbone.config.backbone
    loaded = type(backbone).from_pretrained(name, config=backbone.config, dtype=backbone.dtype)
    backbone.load_state_dict(loaded.state_dict())


def without_stochastic_depth(module: Any) -> None:
    """Blocks of transformers and timm draw it where `drop_prob` says so."""
    if type(module).__name__.endswith("DropPath"):
        module.drop_prob = 0.0
