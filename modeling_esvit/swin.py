# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the Swin backbone as EsViT uses it (arXiv 2106.09785, section 3.1; Swin: arXiv 2103.14030).

It differs from transformers' own Swin where published EsViT weights depend on it: window and shift of a stage are
fixed at construction and never follow the input, padding is not masked, every epsilon is `layer_norm_eps`, DropPath is
on both branches, and the patch embedding crops instead of padding.

Tokens of several crop sizes are packed (see `tokens.py`); only windows, masks and 2 x 2 merging go grid by grid.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from .family import NETWORK_OPTIONS, AttentionLayout, Family, TokenGrid, require_heads
from .swin_attention import ByShape, EsViTSwinAttention
from .tokens import (
    AttentionWeights,
    EncoderOutput,
    EncoderRequest,
    EsViTDropPath,
    EsViTLayer,
    EsViTMLP,
    EsViTStage,
    Grid,
    add_branch,
    check_patch,
    count_tokens,
    pack_groups,
    pool_groups,
    recompute_inner,
    split_groups,
    split_images,
    spread_drop_path_rates,
    to_map,
)
from .windows import compute_padded_size, make_legacy_shift_masks, make_shift_mask


if TYPE_CHECKING:
    from .configuration_esvit import EsViTConfig


PART_TOKENS = 4096  # tokens that pass through a block at a time on a CPU, so that what it makes of them stays in cache


class EsViTSwinPatchEmbed(nn.Module):
    """Embeds the patches of every group. Pixels beyond a multiple of the patch size are cropped."""

    def __init__(self, config: "EsViTConfig"):
        super().__init__()
        self.proj = nn.Conv2d(config.num_channels, config.embed_dim, config.patch_size, stride=config.patch_size)
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps) if config.patch_norm else nn.Identity()
        self.position_grid = config.patch_grid()
        num_positions = self.position_grid[0] * self.position_grid[1]
        self.absolute_pos_embed = (
            nn.Parameter(torch.empty(1, num_positions, config.embed_dim)) if config.use_absolute_embeddings else None
        )
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def init_weights(self, std: float) -> None:
        if self.absolute_pos_embed is not None:
            init.trunc_normal_(self.absolute_pos_embed, std=std)

    def forward(self, crops: list[torch.Tensor]) -> tuple[torch.Tensor, list[Grid]]:
        maps = [self.proj(images).permute(0, 2, 3, 1) for images in crops]  # [n, h, w, E]
        grids = [(m.shape[0], m.shape[1], m.shape[2]) for m in maps]
        tokens = self.norm(pack_groups(maps))
        if self.absolute_pos_embed is not None:
            tokens = tokens + self.position_embedding(self.absolute_pos_embed, grids)
        return self.dropout(tokens), grids

    def position_embedding(self, embedding: torch.Tensor, grids: list[Grid]) -> torch.Tensor:
        """Returns the learned embedding at each group's size, resized bicubically for any size but its own."""
        image = embedding.unflatten(1, self.position_grid).permute(0, 3, 1, 2)
        resized = [
            image if (h, w) == self.position_grid else F.interpolate(image, size=(h, w), mode="bicubic")
            for _, h, w in grids
        ]
        return pack_groups(
            [r.permute(0, 2, 3, 1).expand(n, -1, -1, -1) for r, (n, _, _) in zip(resized, grids, strict=True)]
        )


class EsViTSwinLayer(EsViTLayer):
    """Holds a block: window attention and MLP, each pre-normed, residual and under DropPath."""

    def __init__(self, config: "EsViTConfig", dim: int, num_heads: int, window: int, shift: int, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.attn = EsViTSwinAttention(config, dim, num_heads, window, shift)
        self.norm2 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.mlp = EsViTMLP(config, dim)
        self.drop_path = EsViTDropPath(drop_path)

    def forward(
        self, hidden_states: torch.Tensor, grids: list[Grid], masks: ByShape, output_attentions: bool = False
    ) -> tuple[torch.Tensor, AttentionWeights]:
        in_parts = hidden_states.device.type == "cpu" and not output_attentions and not torch.compiler.is_compiling()
        in_parts = in_parts and all(mask.ndim == 3 for mask in masks.values())  # legacy masks go on from image to image
        parts = split_images(grids, PART_TOKENS) if in_parts else [grids]
        lengths = [sum(count_tokens(part)) for part in parts]
        factors = [self.drop_path(grids, hidden_states) for _ in ("attention", "mlp")]
        per_part = [[None] * len(parts) if f is None else f.split(lengths) for f in factors]
        biases: ByShape = {}
        outputs = []
        weights = None
        for tokens, part, *drops in zip(hidden_states.flatten(0, 1).split(lengths), parts, *per_part, strict=True):
            # The norms' calls, not the norms: Accelerate's hooks move every module that they find among the arguments.
            branch, weights = self.attn(tokens[None], self.norm1.__call__, part, masks, biases, output_attentions)
            tokens = add_branch(tokens, branch.flatten(0, 1), drops[0])
            outputs.append(add_branch(tokens, self.mlp(tokens, self.norm2.__call__), drops[1]))
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).view_as(hidden_states), weights


class EsViTSwinPatchMerging(nn.Module):
    """Merges 2 x 2 tokens into one of twice the width; odd maps are zero-padded at the bottom and right."""

    def __init__(self, config: "EsViTConfig", dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=config.layer_norm_eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, hidden_states: torch.Tensor, grids: list[Grid]) -> tuple[torch.Tensor, list[Grid]]:
        merged = recompute_inner(self.reduction, lambda tokens: self.norm(self.merge(tokens, grids)), hidden_states)
        return merged, [(n, (h + 1) // 2, (w + 1) // 2) for n, h, w in grids]

    @staticmethod
    def merge(hidden_states: torch.Tensor, grids: list[Grid]) -> torch.Tensor:
        """Joins the channels of 2 x 2 tokens: `[..., C]` -> `[..., 4C]`, a quarter as many tokens."""
        merged = []
        for group in split_groups(hidden_states, grids):
            group = F.pad(group, (0, 0, 0, group.shape[2] % 2, 0, group.shape[1] % 2))
            corners = group.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [n, h / 2, 2, w / 2, 2, C]
            merged.append(corners.permute(0, 1, 3, 4, 2, 5).flatten(3))
        return pack_groups(merged)


class EsViTSwinStage(EsViTStage):
    """Holds the blocks of one resolution and (but for the last stage) patch merging."""

    def __init__(self, config: "EsViTConfig", index: int, drop_path: list[float]):
        super().__init__()
        dim = config.embed_dim * 2**index
        self.window, self.shift = config.stage_window(index)
        rows, columns = config.patch_grid()
        self.legacy_map = (rows >> index, columns >> index) if config.legacy_shift_mask else None
        self.blocks = nn.ModuleList(
            EsViTSwinLayer(config, dim, config.num_heads[index], self.window, self.shift if block % 2 else 0, rate)
            for block, rate in enumerate(drop_path)
        )
        is_last = index == len(config.depths) - 1
        self.downsample = None if is_last else EsViTSwinPatchMerging(config, dim)

    def make_shift_masks(self, grids: list[Grid], like: torch.Tensor) -> ByShape:
        """Returns the masks of the shifted blocks; none in a stage without shift."""
        if not self.shift:
            return {}
        if self.legacy_map is not None and self.training:
            layout = (self.legacy_map, self.window, self.shift, like)
            return {grid[1:]: make_legacy_shift_masks(grid, *layout) for grid in grids}
        return {
            (h, w): make_shift_mask(*compute_padded_size(h, w, self.window), self.window, self.shift, like)
            for _, h, w in grids
        }

    def forward(
        self, hidden_states: torch.Tensor, grids: list[Grid], output_attentions: bool = False, last_blocks: int = 0
    ) -> tuple[torch.Tensor, list[Grid], torch.Tensor, list[torch.Tensor]]:
        """Returns tokens and grids after merging, the tokens before it, and those of the last `last_blocks` blocks."""
        masks = self.make_shift_masks(grids, hidden_states)
        kept = []
        for index, block in enumerate(self.blocks):
            hidden_states, _ = block(hidden_states, grids, masks, output_attentions)
            if index >= len(self.blocks) - last_blocks:
                kept.append(hidden_states)
        before_merging = hidden_states
        if self.downsample is not None:
            hidden_states, grids = self.downsample(hidden_states, grids)
        return hidden_states, grids, before_merging, kept


class EsViTSwinEncoder(nn.Module):
    """Holds patch embedding, stages and final norm.

    Every encoder offers `input_embedding`, `check_size`, `norm` (the final one) and `forward`.
    """

    def __init__(self, config: "EsViTConfig"):
        super().__init__()
        self.patch_size = config.patch_size
        self.depths = config.depths
        self.patch_embed = EsViTSwinPatchEmbed(config)
        rates = spread_drop_path_rates(config.drop_path_rate, config.depths)
        self.layers = nn.ModuleList(EsViTSwinStage(config, stage, rates[stage]) for stage in range(len(rates)))
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def input_embedding(self) -> nn.Module:
        return self.patch_embed.proj

    def check_size(self, height: int, width: int) -> None:
        check_patch(height, width, self.patch_size)

    def forward(self, crops: list[torch.Tensor], request: EncoderRequest) -> EncoderOutput:
        """Encodes groups of crops, each `[n, channels, height, width]`."""
        tokens, grids = self.patch_embed(crops)
        maps = [to_map(tokens, grids)] if request.maps else []
        pooled_blocks: list[torch.Tensor] = []
        for index, stage in enumerate(self.layers):
            wanted = max(request.last_blocks - sum(self.depths[index + 1 :]), 0)
            stage_grids = grids
            tokens, grids, unmerged, blocks = stage(tokens, grids, request.attentions, wanted)
            if request.maps:
                maps.append(to_map(unmerged, stage_grids) if request.before_merging else to_map(tokens, grids))
            is_last = index == len(self.layers) - 1
            pooled_blocks += [pool_groups(self.norm(block) if is_last else block, stage_grids) for block in blocks]
        tokens = self.norm(tokens)
        maps_or_none = tuple(maps) if request.maps else None
        return EncoderOutput(tokens, grids, pool_groups(tokens, grids), maps_or_none, tuple(pooled_blocks))


# The family


def find_token_grids(config: "EsViTConfig", height: int, width: int) -> list[TokenGrid]:
    """Returns the grid of each stage.

    The image is cropped to whole patches, once. The last token of an odd map is merged with padding, and so covers
    fewer pixels.
    """
    rows, columns = height // config.patch_size, width // config.patch_size
    seen = (rows * config.patch_size, columns * config.patch_size)
    grids = []
    for stage in range(len(config.depths)):
        stride = config.patch_size << stage
        grids.append(TokenGrid(rows, columns, stride, stride / 2, seen))
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
    return grids


def find_attention_layouts(
    encoder: EsViTSwinEncoder, config: "EsViTConfig", grids: Sequence[TokenGrid]
) -> list[AttentionLayout]:
    stages: Any = enumerate(encoder.layers)
    attentions = [(index, block.attn) for index, stage in stages for block in stage.blocks]
    return [AttentionLayout(index, window=attention.window, shift=attention.shift) for index, attention in attentions]


def validate(config: "EsViTConfig") -> None:
    require_heads(config)
    if min(config.patch_grid()) >> (len(config.depths) - 1) < 1:
        raise ValueError(
            f"image_size {config.image_size} with patch_size {config.patch_size} leaves no token for stage "
            f"{len(config.depths)}; use an image_size of at least {config.patch_size << (len(config.depths) - 1)}."
        )


def list_unseen(config: "EsViTConfig") -> dict[str, Any]:
    return {
        "window and shift of each stage (image_size)": [config.stage_window(s) for s in range(config.num_layers)],
        "layer_norm_eps": config.layer_norm_eps,
        "hidden_act": config.hidden_act,
    }


SWIN = Family(
    key="swin",
    name="Swin",
    encoder=EsViTSwinEncoder,
    variants={
        "swin-tiny": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "drop_path_rate": 0.1},
        "swin-small": {"embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24], "drop_path_rate": 0.2},
        "swin-base": {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "drop_path_rate": 0.2},
        "swin-large": {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "drop_path_rate": 0.2},
    },
    options=(
        *NETWORK_OPTIONS,
        *("window_size", "patch_size", "use_absolute_embeddings", "patch_norm", "legacy_shift_mask"),
    ),
    identity=(
        *("image_size", "patch_size", "num_channels", "embed_dim", "depths", "num_heads", "window_size", "mlp_ratio"),
        *("qkv_bias", "use_absolute_embeddings", "patch_norm"),
    ),
    token_grids=find_token_grids,
    validate=validate,
    unseen=list_unseen,
    attention_layouts=find_attention_layouts,
)
