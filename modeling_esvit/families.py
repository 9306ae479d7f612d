# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The families of architectures: published variants, and what a configuration means and must satisfy in each.

A new family is an entry of FAMILIES, the fields that it needs in `configuration_esvit.py`, and an encoder in a file of
its own, named in ENCODERS of `modeling_esvit.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .backbone_probe import EsViTBackboneError, description, last_map, resolve_backbone, stages
from .errors import EsViTError


if TYPE_CHECKING:
    from .configuration_esvit import EsViTConfig


class EsViTArchitectureError(EsViTError, ValueError):
    """The name of an architecture, or of a field of it, that does not exist or is not supported."""


def nothing_to_complete(config: EsViTConfig) -> None:
    """Of families whose fields are all given."""


def stem_and_stages(config: EsViTConfig) -> dict[str, int]:
    """A map for each entry of `depths`."""
    widths = {f"stage{stage}": width for stage, width in enumerate(config.stage_widths(), 1)}
    return {"stem": config.stage_widths()[0], **widths}


@dataclass(frozen=True)
class Family:
    """name: as people write it.
    variants: fields of the published architectures, by the name of each.
    fields: those fields of a configuration that make the network; two that agree in them are the same one.
    region_grid: rows and columns of regions of an image of so many pixels (height, width).
    validate: raises a ValueError that names the value, if fields cannot work together.
    unseen: what decides the computation but not the shape of any tensor, by a name for people.
    complete: fills in fields that follow from others, before anything else is done with them.
    stages: the maps that [`EsViTBackbone`] may return, and the width C of each, from the stem on.
    normed_maps: whether these come normed from the encoder.
    completed: fields that `complete` sets, whatever they were.
    """

    name: str
    variants: dict[str, dict[str, Any]]
    fields: tuple[str, ...]
    region_grid: Callable[[EsViTConfig, int, int], tuple[int, int]]
    validate: Callable[[EsViTConfig], None]
    unseen: Callable[[EsViTConfig], dict[str, Any]]
    complete: Callable[[EsViTConfig], None] = nothing_to_complete
    stages: Callable[[EsViTConfig], dict[str, int]] = stem_and_stages
    normed_maps: bool = False
    completed: tuple[str, ...] = ()


def require_stages(config: EsViTConfig, **lists) -> None:
    """Lists with one entry for each stage."""
    for name, values in lists.items():
        if not config.depths or values is None or len(config.depths) != len(values):
            raise ValueError(f"depths {config.depths} and {name} {values} must have one entry per stage.")


def require_at_least(minimum: int, **lists) -> None:
    for name, values in lists.items():
        if min(values) < minimum:
            raise ValueError(f"{name} {list(values)} must be at least {minimum} in every stage.")


def require_heads(config: EsViTConfig) -> None:
    """Attention heads that divide the width of each stage."""
    require_stages(config, num_heads=config.num_heads)
    for stage, (heads, width) in enumerate(zip(config.num_heads, config.stage_widths(), strict=True)):
        if heads < 1 or width % heads:
            raise ValueError(f"num_heads[{stage}]={heads} must divide the width {width} of stage {stage}.")


# Swin

SWIN_VARIANTS = {
    "swin-tiny": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "drop_path_rate": 0.1},
    "swin-small": {"embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24], "drop_path_rate": 0.2},
    "swin-base": {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "drop_path_rate": 0.2},
    "swin-large": {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "drop_path_rate": 0.2},
}
SWIN_FIELDS = (
    *("image_size", "patch_size", "num_channels", "embed_dim", "depths", "num_heads", "window_size", "mlp_ratio"),
    *("qkv_bias", "use_absolute_embeddings", "patch_norm"),
)


def swin_region_grid(config: EsViTConfig, height: int, width: int) -> tuple[int, int]:
    rows, columns = height // config.patch_size, width // config.patch_size
    for _ in range(config.num_layers - 1):
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
    return rows, columns


def validate_swin(config: EsViTConfig) -> None:
    require_heads(config)
    if min(config.patch_grid()) >> (len(config.depths) - 1) < 1:
        raise ValueError(
            f"image_size {config.image_size} with patch_size {config.patch_size} leaves no token for stage "
            f"{len(config.depths)}; use an image_size of at least {config.patch_size << (len(config.depths) - 1)}."
        )


def swin_unseen(config: EsViTConfig) -> dict[str, Any]:
    return {
        "window and shift of each stage (image_size)": [config.stage_window(s) for s in range(config.num_layers)],
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_act": config.hidden_act,
    }


# ViL

VIL_VARIANTS = {
    "vil-tiny": {  # vil_2262 of the original
        "embed_dim": 96,
        "depths": [2, 2, 6, 2],
        "num_heads": [3, 6, 12, 24],
        "patch_strides": [4, 2, 2, 2],
        "sparse_stages": [1, 1, 0, 0],
        "global_tokens": [1, 1, 1, 0],
        "drop_path_rate": 0.1,
    },
}
VIL_FIELDS = (
    *("image_size", "num_channels", "embed_dim", "stage_dims", "depths", "num_heads", "window_size", "mlp_ratio"),
    *("qkv_bias", "patch_strides", "sparse_stages", "global_tokens", "vil_shared_weights"),
)


def vil_region_grid(config: EsViTConfig, height: int, width: int) -> tuple[int, int]:
    for stride in config.patch_strides:
        height, width = height // stride, width // stride
    return height, width


def validate_vil(config: EsViTConfig) -> None:
    require_heads(config)
    require_stages(
        config,
        patch_strides=config.patch_strides,
        sparse_stages=config.sparse_stages,
        global_tokens=config.global_tokens,
    )
    require_at_least(1, patch_strides=config.patch_strides)
    require_at_least(0, global_tokens=config.global_tokens)
    if not {0, 1}.issuperset(config.sparse_stages):
        raise ValueError(f"sparse_stages {config.sparse_stages} must be 1 (sparse) or 0 (full) in every stage.")
    if list(config.sparse_stages) != sorted(config.sparse_stages, reverse=True):
        raise ValueError(f"sparse_stages {config.sparse_stages} must not have a 1 after a 0.")
    if config.patch_size != config.patch_strides[0]:
        raise ValueError(f"patch_size {config.patch_size} must be the first of patch_strides {config.patch_strides}.")
    if config.vil_mode not in range(-1, 9):
        raise ValueError(f"vil_mode must be -1, 0, or above 0 (at most 8), got {config.vil_mode}.")
    if config.vil_exact_window and config.vil_mode != 0:
        raise ValueError(f"vil_exact_window needs vil_mode 0, got {config.vil_mode}.")
    if not isinstance(config.image_size, int) and config.image_size[0] != config.image_size[1]:
        raise ValueError(f"A ViL is constructed for square images; image_size is {config.image_size}.")
    side = min(config.patch_grid()) * config.patch_size
    if min(config.region_grid(side, side)) < 1:
        raise ValueError(
            f"image_size {config.image_size} with patch_strides {config.patch_strides} leaves no token for stage "
            f"{len(config.depths)}; use an image_size of at least {math.prod(config.patch_strides)}."
        )


def vil_unseen(config: EsViTConfig) -> dict[str, Any]:
    return {
        "vil_exact_window": config.vil_exact_window,
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_act": config.hidden_act,
    }


# ViT

VIT_VARIANTS = {
    "deit-tiny": {"embed_dim": 192, "depths": [12], "num_heads": [3], "patch_size": 16, "drop_path_rate": 0.1},
    "deit-small": {"embed_dim": 384, "depths": [12], "num_heads": [6], "patch_size": 16, "drop_path_rate": 0.1},
    "vit-base": {"embed_dim": 768, "depths": [12], "num_heads": [12], "patch_size": 16, "drop_path_rate": 0.1},
}
# Patches are of 16 or 8 pixels.
VIT_FIELDS = ("image_size", "num_channels", "embed_dim", "depths", "num_heads", "mlp_ratio", "qkv_bias")


def vit_region_grid(config: EsViTConfig, height: int, width: int) -> tuple[int, int]:
    return height // config.patch_size, width // config.patch_size


def validate_vit(config: EsViTConfig) -> None:
    if len(config.depths) != 1:
        raise ValueError(f"A ViT has one stage; depths {config.depths} has others.")
    require_heads(config)
    if min(config.patch_grid()) < 1:
        raise ValueError(f"image_size {config.image_size} is smaller than patch_size {config.patch_size}.")


def vit_unseen(config: EsViTConfig) -> dict[str, Any]:
    names = ("num_heads", "image_size", "layer_norm_eps", "hidden_act")
    return {name: getattr(config, name) for name in names}


def vit_stages(config: EsViTConfig) -> dict[str, int]:
    """A map after each block."""
    return dict.fromkeys(["stem", *(f"stage{block + 1}" for block in range(sum(config.depths)))], config.embed_dim)


# Backbones of transformers

RESNET_50 = {
    "model_type": "resnet",
    "embedding_size": 64,
    "hidden_sizes": [256, 512, 1024, 2048],
    "depths": [3, 4, 6, 3],
    "layer_type": "bottleneck",
    "hidden_act": "relu",
}
# Tables 1 and 7 of PVT (arXiv 2102.12122); widths, heads, ratios and patches are the same in all.
PVT_DEPTHS = {
    "pvt-tiny": [2, 2, 2, 2],
    "pvt-small": [3, 4, 6, 3],
    "pvt-medium": [3, 4, 18, 3],
    "pvt-large": [3, 8, 27, 3],
}
AUTO_VARIANTS = {
    "resnet-50": {"backbone_config": RESNET_50},
    **{
        name: {"backbone_config": {"model_type": "pvt", "depths": depths, "drop_path_rate": 0.1}}
        for name, depths in PVT_DEPTHS.items()
    },
}
# Of a backbone's configuration: what has no influence on its last map in evaluation.
NOT_COMPUTED = (
    *("transformers_version", "_name_or_path", "architectures", "dtype", "id2label", "label2id", "problem_type"),
    *("out_features", "out_indices", "stage_names", "initializer_range", "output_attentions", "output_hidden_states"),
    *("return_dict", "drop_path_rate", "chunk_size_feed_forward", "is_encoder_decoder"),
)


def complete_auto(config: EsViTConfig) -> None:
    """All that is known of a backbone is in `backbone_config`; it has no blocks that could be counted."""
    if config.backbone_config is None:
        raise EsViTBackboneError(
            "The architecture 'auto' needs a backbone_config: the configuration of a backbone of transformers, the "
            "name of a model on the Hub, a model folder, or a config.json."
        )
    config.backbone_config = resolve_backbone(config.backbone_config)
    config.num_channels = getattr(config.backbone_config, "num_channels", 3)
    config.embed_dim = list(stages(config.backbone_config).values())[-1]
    config.depths, config.num_heads, config.patch_size = [1], [1], 1


def auto_region_grid(config: EsViTConfig, height: int, width: int) -> tuple[int, int]:
    return last_map(description(config.backbone_config), height, width)[1:]


def validate_auto(config: EsViTConfig) -> None:
    """What can be wrong stops the completion."""


def auto_stages(config: EsViTConfig) -> dict[str, int]:
    return stages(config.backbone_config)


def auto_unseen(config: EsViTConfig) -> dict[str, Any]:
    fields = config.backbone_config.to_dict()
    return {f"backbone_config.{name}": fields[name] for name in sorted(fields) if name not in NOT_COMPUTED}


# CvT

CVT_CONSTANTS: dict[str, Any] = {
    **{"patch_kernels": [7, 3, 3, 3], "patch_strides": [4, 2, 2, 2], "patch_paddings": [2, 1, 1, 1]},
    **{"layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"},
}
CVT_VARIANTS = {
    "cvt-tiny": {  # experiments/imagenet/cvt_v4/s1.yaml of the original
        **{"embed_dim": 64, "stage_dims": [64, 192, 384, 768], "depths": [2, 2, 6, 2], "num_heads": [1, 3, 6, 12]},
        **{**CVT_CONSTANTS, "drop_path_rate": 0.1},
    },
    "cvt-small": {  # s3.yaml
        **{"embed_dim": 64, "stage_dims": [64, 128, 256, 512], "depths": [2, 2, 10, 4], "num_heads": [2, 4, 8, 16]},
        **{**CVT_CONSTANTS, "drop_path_rate": 0.2},
    },
}
CVT_FIELDS = (
    *("num_channels", "stage_dims", "depths", "num_heads", "window_size", "mlp_ratio", "qkv_bias"),
    *("patch_kernels", "patch_strides", "patch_paddings", "layer_norm_eps", "hidden_act"),
)


def cvt_region_grid(config: EsViTConfig, height: int, width: int) -> tuple[int, int]:
    for stage in range(config.num_layers):
        kernel, stride, padding = config.patch_convolution(stage)
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    return height, width


def validate_cvt(config: EsViTConfig) -> None:
    names = ("patch_kernels", "patch_strides", "patch_paddings", "stage_dims")
    require_stages(config, **{name: getattr(config, name) for name in names})
    require_at_least(1, patch_kernels=config.patch_kernels, patch_strides=config.patch_strides)
    require_at_least(0, patch_paddings=config.patch_paddings)
    require_heads(config)
    if config.embed_dim != config.stage_widths()[0]:
        raise ValueError(f"embed_dim {config.embed_dim} must be the first of stage_dims {config.stage_dims}.")


def cvt_unseen(config: EsViTConfig) -> dict[str, Any]:
    names = ("num_heads", "window_size", "patch_strides", "patch_paddings", "layer_norm_eps", "hidden_act")
    return {name: getattr(config, name) for name in names}


FAMILIES = {
    "swin": Family("Swin", SWIN_VARIANTS, SWIN_FIELDS, swin_region_grid, validate_swin, swin_unseen),
    "vil": Family("ViL", VIL_VARIANTS, VIL_FIELDS, vil_region_grid, validate_vil, vil_unseen),
    "vit": Family("ViT", VIT_VARIANTS, VIT_FIELDS, vit_region_grid, validate_vit, vit_unseen, stages=vit_stages),
    "auto": Family(
        name="Backbone of transformers",
        variants=AUTO_VARIANTS,
        fields=("backbone_config",),
        region_grid=auto_region_grid,
        validate=validate_auto,
        unseen=auto_unseen,
        complete=complete_auto,
        stages=auto_stages,
        normed_maps=True,
        completed=("num_channels", "embed_dim", "depths", "num_heads", "patch_size"),
    ),
    "cvt": Family("CvT", CVT_VARIANTS, CVT_FIELDS, cvt_region_grid, validate_cvt, cvt_unseen),
}
OWN = ("swin", "cvt", "vil", "vit")  # networks that are built here
# Fields that not every family has, and those that do.
ONLY_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("embed_dim", "depths", "num_heads", "mlp_ratio", "qkv_bias", "num_channels", "hidden_act"), OWN),
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"), OWN),
    "window_size": ("swin", "cvt", "vil"),
    "patch_size": ("swin", "vil", "vit"),  # a CvT's patches are its patch_strides
    **dict.fromkeys(("stage_dims", "patch_strides"), ("cvt", "vil")),
    **dict.fromkeys(("patch_kernels", "patch_paddings"), ("cvt",)),
    **dict.fromkeys(("use_absolute_embeddings", "patch_norm", "legacy_shift_mask"), ("swin",)),
    **dict.fromkeys(("sparse_stages", "global_tokens", "vil_mode", "vil_exact_window"), ("vil",)),
    "vil_shared_weights": ("vil",),
    "backbone_config": ("auto",),
}


def require_fields(architecture: str, names: Iterable[str]) -> None:
    """Raises:
    EsViTArchitectureError: networks of this family have no such field.
    """
    strange = [name for name in names if architecture not in ONLY_OF.get(name, FAMILIES)]
    if strange:
        names_of = {name: " or ".join(FAMILIES[key].name for key in ONLY_OF[name]) for name in strange}
        known = "; ".join(f"{name} is for a {names}" for name, names in names_of.items())
        hint = " Those of a backbone of transformers stand in its backbone_config." if architecture == "auto" else ""
        raise EsViTArchitectureError(f"{known}; not for a {FAMILIES[architecture].name}.{hint}")
