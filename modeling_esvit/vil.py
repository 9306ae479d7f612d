# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the ViL backbone as EsViT uses it (arXiv 2106.09785, section 3.1; Vision Longformer: arXiv 2103.15358).

A stage embeds the map before it, puts its own learned global tokens in front of the tokens of each image, and drops
them at its end: only local tokens go on. The first stages attend sparsely, the later ones densely.

Global and local tokens of an image are a *sequence* of g + h * w tokens, and sequences are packed as tokens are (see
`tokens.py`): what works per token sees them at once, attention goes group by group.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .family import (
    NETWORK_OPTIONS,
    AttentionLayout,
    Family,
    TokenGrid,
    make_patch_grid,
    require_heads,
    require_stages,
    require_widths,
)
from .tokens import (
    AttentionWeights,
    EncoderOutput,
    EncoderRequest,
    EsViTDropPath,
    EsViTInputError,
    EsViTLayer,
    EsViTMLP,
    EsViTStage,
    Grid,
    add_branch,
    pack_groups,
    split_groups,
    spread_drop_path_rates,
    to_map,
)
from .vil_attention import EsViTViLFullAttention, EsViTViLSparseAttention
from .vil_embedding import EsViTViLEmbedding, find_construction_side, has_positions, make_embedding


if TYPE_CHECKING:
    from .configuration_esvit import EsViTConfig


# Tokens a side of a chunk: a map is padded to whole ones, and the weights of one of them are 9 W^4 numbers.
LARGEST_CHUNK = 64


def find_sequences(grids: list[Grid], num_global: int) -> list[Grid]:
    """Returns the sequences of each group as grids of one row."""
    return [(n, 1, num_global + h * w) for n, h, w in grids]


def split_sequences(sequences: torch.Tensor, grids: list[Grid], num_global: int) -> list[torch.Tensor]:
    """Splits packed sequences into one `[n, g + h * w, C]` a group."""
    return [group.flatten(1, 2) for group in split_groups(sequences, find_sequences(grids, num_global))]


def drop_global_tokens(sequences: torch.Tensor, grids: list[Grid], num_global: int) -> torch.Tensor:
    """Returns packed sequences without their global tokens."""
    return pack_groups([group[:, num_global:] for group in split_sequences(sequences, grids, num_global)])


def pool_sequences(sequences: torch.Tensor, grids: list[Grid], num_global: int) -> torch.Tensor:
    """Returns the first global token of each image, or the mean of its tokens if it has none: `[sum n, C]`."""
    groups = split_sequences(sequences, grids, num_global)
    return torch.cat([group[:, 0] if num_global else group.mean(dim=1) for group in groups])


class EsViTViLAttentionBlock(EsViTLayer):
    """Holds pre-normed attention, residual and under DropPath."""

    def __init__(self, config: "EsViTConfig", stage: int, drop_path: float):
        super().__init__()
        dim, heads = config.stage_widths()[stage], config.num_heads[stage]
        self.num_global = config.global_tokens[stage]
        self.norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        has_biases = not has_positions(config, stage)
        self.attn: EsViTViLSparseAttention | EsViTViLFullAttention
        if config.sparse_stages[stage]:
            self.attn = EsViTViLSparseAttention(config, dim, heads, self.num_global, has_biases)
        else:
            side = find_construction_side(config, stage)
            self.attn = EsViTViLFullAttention(config, dim, heads, self.num_global, side, has_biases)
        self.drop_path = EsViTDropPath(drop_path)

    def forward(
        self, hidden_states: torch.Tensor, grids: list[Grid], output_attentions: bool = False
    ) -> tuple[torch.Tensor, AttentionWeights]:
        """Transforms packed sequences; also returns the weights of each group if they are asked for."""
        groups = split_sequences(self.norm(hidden_states), grids, self.num_global)
        outputs, weights = zip(
            *(self.attn(group, h, w, output_attentions) for group, (_, h, w) in zip(groups, grids, strict=True)),
            strict=True,
        )
        factors = self.drop_path(find_sequences(grids, self.num_global), hidden_states)
        branch = pack_groups(list(outputs)).flatten(0, 1)
        hidden_states = add_branch(hidden_states.flatten(0, 1), branch, factors).view_as(hidden_states)
        if not output_attentions:
            return hidden_states, None
        return hidden_states, weights[0] if len(weights) == 1 else weights


class EsViTViLMLPBlock(GradientCheckpointingLayer):
    """Holds a pre-normed MLP, residual and under DropPath."""

    def __init__(self, config: "EsViTConfig", stage: int, drop_path: float):
        super().__init__()
        dim = config.stage_widths()[stage]
        self.num_global = config.global_tokens[stage]
        self.norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.mlp = EsViTMLP(config, dim)
        self.drop_path = EsViTDropPath(drop_path)

    def forward(self, hidden_states: torch.Tensor, grids: list[Grid]) -> torch.Tensor:
        factors = self.drop_path(find_sequences(grids, self.num_global), hidden_states)
        # The norm's call, not the norm: Accelerate's hooks move every module that they find among the arguments.
        branch = self.mlp(hidden_states, self.norm.__call__).flatten(0, 1)
        return add_branch(hidden_states.flatten(0, 1), branch, factors).view_as(hidden_states)


class EsViTViLStage(EsViTStage, nn.ModuleList):
    """Holds the embedding, then attention and MLP in turns, as the original numbers them."""

    def __init__(self, config: "EsViTConfig", stage: int, drop_path: list[float]):
        blocks = [
            block(config, stage, rate) for rate in drop_path for block in (EsViTViLAttentionBlock, EsViTViLMLPBlock)
        ]
        nn.ModuleList.__init__(self, [make_embedding(config, stage), *blocks])
        self.num_global = config.global_tokens[stage]

    @property
    def embedding(self) -> EsViTViLEmbedding:
        return cast(EsViTViLEmbedding, self[0])

    def forward(
        self, hidden_states: torch.Tensor, grids: list[Grid], output_attentions: bool = False, last_blocks: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Transforms the packed local tokens that the stage's embedding gave.

        Returns packed local tokens, and packed sequences: those of the last block, and of each of the last
        `last_blocks`.
        """
        sequences = self.embedding.add_global_tokens(hidden_states, grids)
        kept = []
        blocks = list(self)[1:]
        for attention, mlp in zip(blocks[::2], blocks[1::2], strict=True):
            sequences, _ = attention(sequences, grids, output_attentions)
            sequences = mlp(sequences, grids)
            kept.append(sequences)
        return drop_global_tokens(sequences, grids, self.num_global), sequences, kept[max(len(kept) - last_blocks, 0) :]


class EsViTViLEncoder(nn.Module):
    """Holds the stages and the final norm."""

    def __init__(self, config: "EsViTConfig"):
        super().__init__()
        self.depths = config.depths
        self.patch_strides = config.patch_strides
        rates = spread_drop_path_rates(config.drop_path_rate, config.depths)
        for stage, stage_rates in enumerate(rates):
            self.add_module(f"layer{stage + 1}", EsViTViLStage(config, stage, stage_rates))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def stages(self) -> list[EsViTViLStage]:
        return [module for module in self.children() if isinstance(module, EsViTViLStage)]

    def input_embedding(self) -> nn.Module:
        return self.stages()[0].embedding.proj

    def set_mode(self, mode: int) -> None:
        """Sets the chunks that sparse attention sees from now on, see `vil_mode` of the configuration."""
        for module in self.modules():
            if isinstance(module, EsViTViLSparseAttention):
                module.mode = mode

    def check_size(self, height: int, width: int) -> None:
        """Checks that an image of this size has a token in the last stage.

        Raises:
            EsViTInputError: it has none.
        """
        smallest = math.prod(self.patch_strides)
        if min(height, width) < smallest:
            raise EsViTInputError(
                f"An image of {height} x {width} pixels leaves no token for stage {len(self.patch_strides)}; enlarge "
                f"it to at least {smallest} x {smallest}."
            )

    def forward(self, crops: list[torch.Tensor], request: EncoderRequest) -> EncoderOutput:
        """Encodes groups of crops, each `[n, channels, height, width]`."""
        maps: list[torch.Tensor] = []
        features: list[torch.Tensor] = []
        inputs = crops
        for index, stage in enumerate(self.stages()):
            tokens, grids = stage.embedding(inputs)
            if request.maps and not maps:
                maps.append(to_map(tokens, grids))
            wanted = max(request.last_blocks - sum(self.depths[index + 1 :]), 0)
            tokens, sequences, blocks = stage(tokens, grids, request.attentions, wanted)
            inputs = [group.permute(0, 3, 1, 2) for group in split_groups(tokens, grids)]
            if request.maps:
                maps.append(to_map(tokens, grids))
            is_last = index == len(self.depths) - 1
            features += [
                pool_sequences(self.norm(block) if is_last else block, grids, stage.num_global) for block in blocks
            ]
        sequences = self.norm(sequences)
        return EncoderOutput(
            tokens=drop_global_tokens(sequences, grids, stage.num_global),
            grids=grids,
            pooled=pool_sequences(sequences, grids, stage.num_global),
            maps=tuple(maps) if request.maps else None,
            last_blocks=tuple(features),
        )


# The family


def find_token_grids(config: "EsViTConfig", height: int, width: int) -> list[TokenGrid]:
    """Returns the grid of each stage, which crops the map before it to whole patches."""
    rows, columns, side = height, width, 1
    grids = []
    for stride in config.patch_strides:
        rows, columns, side = rows // stride, columns // stride, side * stride
        grids.append(make_patch_grid(rows, columns, side))
    return grids


def find_attention_layouts(
    encoder: EsViTViLEncoder, config: "EsViTConfig", grids: Sequence[TokenGrid]
) -> list[AttentionLayout]:
    blocks: Any = [(index, block) for index, stage in enumerate(encoder.stages()) for block in list(stage)[1::2]]
    return [
        AttentionLayout(index, block.num_global, chunks=block.attn if config.sparse_stages[index] else None)
        for index, block in blocks
    ]


def validate_stages(config: "EsViTConfig") -> None:
    """Checks the lists that have an entry for each stage."""
    if config.stage_dims is not None:
        require_widths(config)
    require_heads(config)
    names = ("patch_strides", "sparse_stages", "global_tokens")
    require_stages(config, **{name: getattr(config, name) for name in names})
    if not {0, 1}.issuperset(config.sparse_stages):
        raise ValueError(f"sparse_stages {config.sparse_stages} must be 1 (sparse) or 0 (full) in every stage.")
    if list(config.sparse_stages) != sorted(config.sparse_stages, reverse=True):
        raise ValueError(f"sparse_stages {config.sparse_stages} must not have a 1 after a 0.")
    if config.patch_size != config.patch_strides[0]:
        raise ValueError(f"patch_size {config.patch_size} must be the first of patch_strides {config.patch_strides}.")


def validate_positions(config: "EsViTConfig") -> None:
    """Checks `absolute_positions`, if there are any."""
    positions = config.absolute_positions
    if positions is None:
        return
    require_stages(config, absolute_positions=positions)
    if not {0, 1}.issuperset(positions):
        raise ValueError(
            f"absolute_positions {positions} must be 1 (position embeddings) or 0 (position biases) in every stage."
        )
    for stage, (has_any, width) in enumerate(zip(positions, config.stage_widths(), strict=True)):
        if has_any and width % 2:
            raise ValueError(
                f"absolute_positions[{stage}] is 1, so half of the width is the row's and half the column's; the width "
                f"{width} of stage {stage} must be even."
            )


def drop_unused_positions(config: "EsViTConfig") -> None:
    """Sets `absolute_positions` to None if no stage has any, so that equal networks have equal fields."""
    if config.absolute_positions is not None and list(config.absolute_positions) == [0] * len(config.depths):
        config.absolute_positions = None


def validate(config: "EsViTConfig") -> None:
    validate_stages(config)
    validate_positions(config)
    if config.window_size > LARGEST_CHUNK:
        raise ValueError(f"window_size of a ViL must be at most {LARGEST_CHUNK} tokens, got {config.window_size}.")
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


def list_unseen(config: "EsViTConfig") -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("vil_exact_window", "layer_norm_eps", "hidden_act")}


VIL = Family(
    key="vil",
    name="ViL",
    encoder=EsViTViLEncoder,
    variants={
        "vil-tiny": {  # vil_2262 of the original
            "embed_dim": 96,
            "depths": [2, 2, 6, 2],
            "num_heads": [3, 6, 12, 24],
            "patch_strides": [4, 2, 2, 2],
            "sparse_stages": [1, 1, 0, 0],
            "global_tokens": [1, 1, 1, 0],
            "drop_path_rate": 0.1,
        },
    },
    options=(
        *(*NETWORK_OPTIONS, "window_size", "patch_size", "stage_dims", "patch_strides", "sparse_stages"),
        *("global_tokens", "absolute_positions", "vil_mode", "vil_exact_window", "vil_shared_weights"),
    ),
    identity=(
        *("image_size", "num_channels", "embed_dim", "stage_dims", "depths", "num_heads", "window_size", "mlp_ratio"),
        *("qkv_bias", "patch_strides", "sparse_stages", "global_tokens", "absolute_positions", "vil_shared_weights"),
    ),
    token_grids=find_token_grids,
    validate=validate,
    unseen=list_unseen,
    attention_layouts=find_attention_layouts,
    complete=drop_unused_positions,
)
