# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the embeddings that the stages of a ViL begin with (arXiv 2103.15358), as EsViT uses them.

A stage has either position biases in its attentions (`vil_attention.py`) or position embeddings here: a learned one for
each row, column and global token.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from .tokens import Grid, pack_groups, split_groups


if TYPE_CHECKING:
    from .configuration_esvit import EsViTConfig


def find_construction_side(config: "EsViTConfig", stage: int) -> int:
    """Returns the side of the map of a stage, in tokens, at construction."""
    side = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
    for stride in config.patch_strides[: stage + 1]:
        side //= stride
    return side


def has_positions(config: "EsViTConfig", stage: int) -> bool:
    """Returns whether a stage has position embeddings, and so no position biases."""
    return config.absolute_positions is not None and bool(config.absolute_positions[stage])


class EsViTViLEmbedding(nn.Module):
    """Embeds patches of a map, cropped to a multiple of the patch size. Holds the global tokens."""

    def __init__(self, config: "EsViTConfig", stage: int):
        super().__init__()
        widths = config.stage_widths()
        patch_size = config.patch_strides[stage]
        num_channels = widths[stage - 1] if stage else config.num_channels
        self.num_global = config.global_tokens[stage]
        if self.num_global:
            self.cls_token = nn.Parameter(torch.empty(1, self.num_global, widths[stage]))
        self.proj = nn.Conv2d(num_channels, widths[stage], patch_size, stride=patch_size)
        self.norm_embed = nn.LayerNorm(widths[stage], eps=config.layer_norm_eps)

    def init_weights(self, std: float) -> None:
        if self.num_global:
            init.trunc_normal_(self.cls_token, std=std)

    def forward(self, maps: list[torch.Tensor]) -> tuple[torch.Tensor, list[Grid]]:
        """Embeds one `[n, channels, height, width]` a group; returns packed local tokens and their grids."""
        embedded = [self.proj(images).permute(0, 2, 3, 1) for images in maps]
        grids = [(m.shape[0], m.shape[1], m.shape[2]) for m in embedded]
        return self.norm_embed(pack_groups(embedded)), grids

    def global_tokens(self) -> torch.Tensor:
        """Returns the global tokens `[1, g, C]`."""
        return self.cls_token

    def add_global_tokens(self, tokens: torch.Tensor, grids: list[Grid]) -> torch.Tensor:
        """Turns packed local tokens into packed sequences."""
        if not self.num_global:
            return tokens
        first = self.global_tokens()
        groups = [group.flatten(1, 2) for group in split_groups(tokens, grids)]
        return pack_groups([torch.cat([first.expand(group.shape[0], -1, -1), group], dim=1) for group in groups])


class EsViTViLPositionedEmbedding(EsViTViLEmbedding):
    """Adds a learned position to each local and global token.

    The first half of a local token's position is its row's, the second half its column's. The original calls the rows
    x, and also has a tensor of no elements for the positions of no global tokens; there is none here.
    """

    def __init__(self, config: "EsViTConfig", stage: int):
        super().__init__(config, stage)
        dim = config.stage_widths()[stage]
        self.side = find_construction_side(config, stage)
        self.x_pos_embed = nn.Parameter(torch.empty(1, self.side, dim // 2))
        self.y_pos_embed = nn.Parameter(torch.empty(1, self.side, dim // 2))
        if self.num_global:
            self.cls_pos_embed = nn.Parameter(torch.empty(1, self.num_global, dim))

    def init_weights(self, std: float) -> None:
        super().init_weights(std)
        for positions in (self.x_pos_embed, self.y_pos_embed, *([self.cls_pos_embed] if self.num_global else [])):
            init.trunc_normal_(positions, std=std)

    def forward(self, maps: list[torch.Tensor]) -> tuple[torch.Tensor, list[Grid]]:
        tokens, grids = super().forward(maps)
        positions = pack_groups([self.local_positions(h, w).expand(n, -1, -1) for n, h, w in grids])
        return tokens + positions, grids

    def global_tokens(self) -> torch.Tensor:
        return self.cls_token + self.cls_pos_embed

    def local_positions(self, height: int, width: int) -> torch.Tensor:
        """Returns the positions of the local tokens of a map, `[1, height * width, C]`, row by row.

        As in the original, the square of N positions is resized bicubically by sqrt((g + T) / N), for g global and T
        local tokens. This counts the global tokens too, so that positions move slightly even at the construction size.
        A result of T positions is used whatever the map's shape: a map of 4 x 9 tokens takes the positions of 6 x 6.
        For any other number the original fails; here the square is resized to the map instead.
        """
        num_local = height * width
        rows, columns = self.x_pos_embed.mT[..., None], self.y_pos_embed.mT[..., None, :]
        square = torch.cat([rows.expand(-1, -1, -1, self.side), columns.expand(-1, -1, self.side, -1)], dim=1)
        scale = math.sqrt((self.num_global + num_local) / self.side**2)
        if not self.num_global and num_local == self.side**2:
            resized = square
        elif int(self.side * scale) ** 2 == num_local:
            resized = F.interpolate(square, scale_factor=scale, mode="bicubic")
        else:
            resized = F.interpolate(square, size=(height, width), mode="bicubic")
        return resized.flatten(2).mT


def make_embedding(config: "EsViTConfig", stage: int) -> EsViTViLEmbedding:
    """Returns the embedding of a stage, with positions if it has any."""
    return (EsViTViLPositionedEmbedding if has_positions(config, stage) else EsViTViLEmbedding)(config, stage)
