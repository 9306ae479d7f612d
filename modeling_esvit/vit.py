# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the monolithic baseline of the paper: ViT / DeiT as DINO uses it (arXiv 2010.11929, 2012.12877, 2104.14294).

It keeps one resolution from the patches to the end. Each image is a *sequence*: a class token, whose final state is the
view feature, and its patches, the regions. Sequences of several sizes are packed as tokens of grids are (see
`tokens.py`); everything but the attention sees them once.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from .attention import attention_function
from .family import NETWORK_OPTIONS, AttentionLayout, Family, TokenGrid, make_patch_grid, require_heads
from .tokens import (
    AttentionWeights,
    EncoderOutput,
    EncoderRequest,
    EsViTDropPath,
    EsViTLayer,
    EsViTMLP,
    EsViTStage,
    Grid,
    TokenFunction,
    add_branch,
    check_patch,
    pack_groups,
    recompute_inner,
    split_groups,
    spread_drop_path_rates,
)


if TYPE_CHECKING:
    from .configuration_esvit import EsViTConfig


def find_sequences(grids: list[Grid]) -> list[Grid]:
    """Returns the grids of sequences: one row of a class token and `h * w` patches."""
    return [(n, 1, 1 + h * w) for n, h, w in grids]


class EsViTViTPatchEmbed(nn.Module):
    """Embeds patches. Pixels beyond a multiple of the patch size are cropped."""

    def __init__(self, config: "EsViTConfig"):
        super().__init__()
        self.proj = nn.Conv2d(config.num_channels, config.embed_dim, config.patch_size, stride=config.patch_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embeds `[n, channels, height, width]` as `[n, h, w, C]`."""
        return self.proj(images).permute(0, 2, 3, 1)


class EsViTViTAttention(nn.Module):
    """Computes multi-head self-attention over whole sequences."""

    def __init__(self, config: "EsViTConfig"):
        super().__init__()
        dim = config.embed_dim
        self.config = config
        self.num_heads = config.num_heads[0]
        self.head_dim = dim // self.num_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.attention_dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(dim, 3 * dim, bias=config.qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, hidden_states: torch.Tensor, norm: TokenFunction, sequences: list[Grid], output_attentions: bool = False
    ) -> tuple[torch.Tensor, AttentionWeights]:
        """Attends inside the sequences of each group.

        Args:
            hidden_states: packed sequences.
            norm: is applied to them first.
            output_attentions: also return the weights of each group `[n, heads, 1 + h * w, 1 + h * w]`.
        """
        attend = attention_function(self.config, output_attentions)
        dropout = self.attention_dropout if self.training else 0.0
        outputs, weights = [], []
        for group in split_groups(recompute_inner(self.qkv, norm, hidden_states), sequences):
            heads = group.view(group.shape[0], group.shape[2], 3, self.num_heads, self.head_dim)
            query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
            output, group_weights = attend(self, query, key, value, None, scaling=self.scaling, dropout=dropout)
            outputs.append(output.flatten(2))
            weights.append(group_weights)
        hidden_states = self.dropout(self.proj(pack_groups(outputs)))
        if not output_attentions:
            return hidden_states, None
        return hidden_states, weights[0] if len(weights) == 1 else tuple(weights)


class EsViTViTLayer(EsViTLayer, EsViTStage):
    """Holds a block: attention and MLP, each pre-normed, residual and under DropPath. Each block is a stage."""

    def __init__(self, config: "EsViTConfig", drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.attn = EsViTViTAttention(config)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.mlp = EsViTMLP(config, config.embed_dim)
        self.drop_path = EsViTDropPath(drop_path)

    def forward(
        self, hidden_states: torch.Tensor, sequences: list[Grid], output_attentions: bool = False
    ) -> tuple[torch.Tensor, AttentionWeights]:
        shape = hidden_states.shape
        # The norms' calls, not the norms: Accelerate's hooks move every module that they find among the arguments.
        branch, weights = self.attn(hidden_states, self.norm1.__call__, sequences, output_attentions)
        tokens = hidden_states.flatten(0, 1)
        tokens = add_branch(tokens, branch.flatten(0, 1), self.drop_path(sequences, tokens))
        branch = self.mlp(tokens, self.norm2.__call__)
        return add_branch(tokens, branch, self.drop_path(sequences, tokens)).view(shape), weights


class EsViTViTEncoder(nn.Module):
    """Holds patch embedding, class token and positions, blocks and final norm."""

    def __init__(self, config: "EsViTConfig"):
        super().__init__()
        dim = config.embed_dim
        self.patch_size = config.patch_size
        self.patch_embed = EsViTViTPatchEmbed(config)
        self.position_grid = config.patch_grid()
        num_positions = 1 + self.position_grid[0] * self.position_grid[1]
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, num_positions, dim))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        (rates,) = spread_drop_path_rates(config.drop_path_rate, config.depths)
        self.blocks = nn.ModuleList(EsViTViTLayer(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)

    def init_weights(self, std: float) -> None:
        init.trunc_normal_(self.cls_token, std=std)
        init.trunc_normal_(self.pos_embed, std=std)

    def input_embedding(self) -> nn.Module:
        return self.patch_embed.proj

    def check_size(self, height: int, width: int) -> None:
        check_patch(height, width, self.patch_size)

    def forward(self, crops: list[torch.Tensor], request: EncoderRequest) -> EncoderOutput:
        """Encodes groups of crops, each `[n, channels, height, width]`.

        Maps are those of the patches, after the embedding and after each block. The features of the last blocks are
        their class tokens, each after the final norm.
        """
        tokens, grids = self.embed(crops)
        sequences = find_sequences(grids)
        maps = [self.to_map(tokens, grids)] if request.maps else []
        kept = []
        for index, block in enumerate(self.blocks):
            tokens, _ = block(tokens, sequences, request.attentions)
            if request.maps:
                maps.append(self.to_map(tokens, grids))
            if index >= len(self.blocks) - request.last_blocks:
                kept.append(torch.cat([group[:, 0, 0] for group in split_groups(tokens, sequences)]))
        groups = split_groups(self.norm(tokens), sequences)
        return EncoderOutput(
            tokens=pack_groups([group[:, 0, 1:] for group in groups]),
            grids=grids,
            pooled=torch.cat([group[:, 0, 0] for group in groups]),
            maps=tuple(maps) if request.maps else None,
            last_blocks=tuple(self.norm(tokens) for tokens in kept),
        )

    def embed(self, crops: list[torch.Tensor]) -> tuple[torch.Tensor, list[Grid]]:
        """Returns the sequences of all groups, packed, and the grids of their patches."""
        maps = [self.patch_embed(images) for images in crops]
        sequences = []
        for patches in maps:
            patches = patches + self.positions(patches.shape[1], patches.shape[2])
            class_token = (self.cls_token + self.pos_embed[:, :1]).expand(patches.shape[0], -1, -1)
            sequences.append(torch.cat([class_token, patches.flatten(1, 2)], dim=1))
        return self.dropout(pack_groups(sequences)), [(m.shape[0], m.shape[1], m.shape[2]) for m in maps]

    def positions(self, rows: int, columns: int) -> torch.Tensor:
        """Returns the positions of `rows` x `columns` patches `[1, rows, columns, C]`.

        The table is resized bicubically for any grid but its own. Each axis has its scale; on square grids that is the
        original's sqrt(T / N).
        """
        table = self.pos_embed[:, 1:].unflatten(1, self.position_grid)
        if (rows, columns) == self.position_grid:
            return table
        resized = F.interpolate(table.permute(0, 3, 1, 2), size=(rows, columns), mode="bicubic")
        return resized.permute(0, 2, 3, 1)

    @staticmethod
    def to_map(tokens: torch.Tensor, grids: list[Grid]) -> torch.Tensor:
        """Returns the patches of one group of sequences as `[n, C, h, w]`."""
        ((_, rows, columns),) = grids
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (rows, columns)).contiguous()


# The family


def find_token_grids(config: "EsViTConfig", height: int, width: int) -> list[TokenGrid]:
    return [make_patch_grid(height // config.patch_size, width // config.patch_size, config.patch_size)]


def find_attention_layouts(
    encoder: EsViTViTEncoder, config: "EsViTConfig", grids: Sequence[TokenGrid]
) -> list[AttentionLayout]:
    return [AttentionLayout(0, num_global=1)] * config.depths[0]


def validate(config: "EsViTConfig") -> None:
    if len(config.depths) != 1:
        raise ValueError(f"A ViT has one stage; depths {config.depths} has others.")
    require_heads(config)
    if min(config.patch_grid()) < 1:
        raise ValueError(f"image_size {config.image_size} is smaller than patch_size {config.patch_size}.")


def list_unseen(config: "EsViTConfig") -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("num_heads", "image_size", "layer_norm_eps", "hidden_act")}


def list_blocks(config: "EsViTConfig") -> dict[str, int]:
    """Returns the width of the stem and of the map after each block, by name."""
    return dict.fromkeys(["stem", *(f"stage{block + 1}" for block in range(sum(config.depths)))], config.embed_dim)


VIT = Family(
    key="vit",
    name="ViT",
    encoder=EsViTViTEncoder,
    variants={
        "deit-tiny": {"embed_dim": 192, "depths": [12], "num_heads": [3], "patch_size": 16, "drop_path_rate": 0.1},
        "deit-small": {"embed_dim": 384, "depths": [12], "num_heads": [6], "patch_size": 16, "drop_path_rate": 0.1},
        "vit-base": {"embed_dim": 768, "depths": [12], "num_heads": [12], "patch_size": 16, "drop_path_rate": 0.1},
    },
    options=(*NETWORK_OPTIONS, "patch_size"),
    # Without patch_size: a published ViT may have patches of 16 or of 8 pixels.
    identity=("image_size", "num_channels", "embed_dim", "depths", "num_heads", "mlp_ratio", "qkv_bias"),
    token_grids=find_token_grids,
    validate=validate,
    unseen=list_unseen,
    attention_layouts=find_attention_layouts,
    stages=list_blocks,
)
