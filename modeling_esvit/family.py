# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the row that each family of architectures has in `families.py`, and the parts of that row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import StrictDataclassError
from torch import nn

from .errors import EsViTError


if TYPE_CHECKING:
    from .configuration_esvit import EsViTConfig


# Options of every network that is built here, but of no backbone of transformers.
NETWORK_OPTIONS = (
    *("embed_dim", "depths", "num_heads", "mlp_ratio", "qkv_bias", "num_channels", "hidden_act"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"),
)
DEFAULT_STRIDE = 32  # pixels from region to region, for models that do not say so


class EsViTArchitectureError(EsViTError, StrictDataclassError, ValueError):
    """Raised when an architecture, or a field of it, does not exist, or when its fields cannot work together."""


@dataclass(frozen=True)
class TokenGrid:
    """Describes where the tokens of a stage lie in the image, in pixels.

    rows, columns: how many there are.
    stride: distance between neighbours; None if the tokens divide the image evenly.
    first: centre of the first token, from the upper left corner.
    seen: height and width of the part of the image that the tokens cover; an embedding crops the rest.
    """

    rows: int
    columns: int
    stride: int | None
    first: float
    seen: tuple[int, int]


@dataclass(frozen=True)
class AttentionLayout:
    """Describes which tokens the attention weights of a block belong to.

    stage: index of the block's token grid.
    num_global: class or global tokens in front of the others.
    window, shift: side and shift of the windows of a padded and rolled map; 0 where each token attends to all.
    chunks: the module whose sparse attention in chunks the weights are (ViL).
    """

    stage: int
    num_global: int = 0
    window: int = 0
    shift: int = 0
    chunks: Any = None


def keep_fields(config: "EsViTConfig") -> None:
    """Does nothing, for families whose fields are all given."""


def list_stages(config: "EsViTConfig") -> dict[str, int]:
    """Returns the width of the stem and of the map of each entry of `depths`, by name."""
    widths = {f"stage{stage}": width for stage, width in enumerate(config.stage_widths(), 1)}
    return {"stem": config.stage_widths()[0], **widths}


def find_region_stride(config: "EsViTConfig") -> int:
    """Returns the stride of the last stage at construction."""
    side = config.image_size
    height, width = (side, side) if isinstance(side, int) else side
    return config.family.token_grids(config, height, width)[-1].stride or DEFAULT_STRIDE


@dataclass(frozen=True)
class Family:
    """Holds all that the package needs to know of a family of architectures.

    key: value of `architecture` in a configuration.
    name: as people write it.
    encoder: class of the backbone, made from a configuration; `EsViTSwinEncoder` shows what it has to offer.
    variants: fields of the published architectures, by the name of each.
    options: the fields that this family takes, among those that not every family takes.
    identity: the fields that make the network; two configurations that agree in them are of the same one.
    token_grids: where the tokens of each stage lie in an image of so many pixels (height, width). Those of the last
        stage are the regions.
    validate: raises a ValueError that names the value if fields cannot work together.
    unseen: what decides the computation but not the shape of any tensor, by a name for people.
    attention_layouts: one for each block, from the encoder, the configuration and its token grids. None for networks
        of transformers, whose own configurations tell it.
    region_stride: pixels from region to region; sides that are multiples of it leave no region incomplete.
    complete: fills in fields that follow from others, before anything else is done with them.
    completed: the fields that `complete` sets, whatever they were.
    stages: the maps that [`EsViTBackbone`] may return, and the width C of each, from the stem on.
    wraps_backbone: whether the encoder holds a backbone of transformers, which norms its maps and records its hidden
        states itself.
    """

    key: str
    name: str
    encoder: Callable[["EsViTConfig"], nn.Module]
    variants: dict[str, dict[str, Any]]
    options: tuple[str, ...]
    identity: tuple[str, ...]
    token_grids: Callable[["EsViTConfig", int, int], list[TokenGrid]]
    validate: Callable[["EsViTConfig"], None]
    unseen: Callable[["EsViTConfig"], dict[str, Any]]
    attention_layouts: Callable[[Any, "EsViTConfig", Sequence[TokenGrid]], list[AttentionLayout]] | None = None
    region_stride: Callable[["EsViTConfig"], int] = find_region_stride
    complete: Callable[["EsViTConfig"], None] = keep_fields
    completed: tuple[str, ...] = ()
    stages: Callable[["EsViTConfig"], dict[str, int]] = list_stages
    wraps_backbone: bool = False

    @property
    def has_windows(self) -> bool:
        """Returns whether attention is by window, or in chunks of that side."""
        return "window_size" in self.options


def make_patch_grid(rows: int, columns: int, side: int) -> TokenGrid:
    """Returns a grid of square patches of `side` pixels; what is beyond the last whole one is cropped."""
    return TokenGrid(rows, columns, side, side / 2, (rows * side, columns * side))


def require_stages(config: "EsViTConfig", **lists) -> None:
    """Checks that each list has one entry per stage."""
    for name, values in lists.items():
        if not config.depths or values is None or len(config.depths) != len(values):
            raise ValueError(f"depths {config.depths} and {name} {values} must have one entry per stage.")


def require_widths(config: "EsViTConfig") -> None:
    """Checks that `stage_dims` has the width of each stage, and that the first is `embed_dim`."""
    require_stages(config, stage_dims=config.stage_dims)
    if config.embed_dim != config.stage_widths()[0]:
        raise ValueError(f"embed_dim {config.embed_dim} must be the first of stage_dims {config.stage_dims}.")


def require_heads(config: "EsViTConfig") -> None:
    """Checks that the number of attention heads of each stage divides its width."""
    require_stages(config, num_heads=config.num_heads)
    for stage, (heads, width) in enumerate(zip(config.num_heads, config.stage_widths(), strict=True)):
        if heads < 1 or width % heads:
            raise ValueError(f"num_heads[{stage}]={heads} must divide the width {width} of stage {stage}.")
