# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the Swin backbone as EsViT uses it (arXiv 2106.09785, section 3.1; Swin: arXiv 2103.14030).

It differs from transformers' own Swin where published EsViT weights depend on it: window and shift of a stage are
fixed at construction and never follow the input, padding is not masked, every epsilon is `layer_norm_eps`, DropPath is
on both branches, and the patch embedding crops instead of padding.

Tokens of several crop sizes are packed (see `tokens.py`); only windows, masks and 2 x 2 merging go grid by grid.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from .attention import attention_function, choose_biased_kernels, to_autocast_type
from .family import NETWORK_OPTIONS, AttentionLayout, Family, TokenGrid, require_heads
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
    TokenFunction,
    add_branch,
    count_tokens,
    pack_groups,
    pool_groups,
    recompute_inner,
    split_groups,
    split_images,
    spread_drop_path_rates,
    to_map,
)
from .windows import (
    compute_padded_size,
    cut_windows,
    index_relative_positions,
    is_gathered,
    is_padded,
    join_windows,
    make_legacy_shift_masks,
    make_shift_mask,
    pad_rows,
    split_heads,
    to_tokens,
    to_windows,
)


if TYPE_CHECKING:
    from .configuration_esvit import EsViTConfig


ByShape = dict[tuple[int, int], torch.Tensor]  # something for each (rows, columns) of a grid

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


class EsViTSwinAttention(nn.Module):
    """Computes multi-head self-attention inside (shifted) windows with a relative position bias."""

    relative_position_index: torch.Tensor

    def __init__(self, config: "EsViTConfig", dim: int, num_heads: int, window: int, shift: int):
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.window = window
        self.shift = shift
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.attention_dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(dim, 3 * dim, bias=config.qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, num_heads))
        self.register_buffer("relative_position_index", index_relative_positions(window), persistent=False)

    def init_weights(self, std: float) -> None:
        init.trunc_normal_(self.relative_position_bias_table, std=std)
        init.copy_(self.relative_position_index, index_relative_positions(self.window))

    def position_bias(self) -> torch.Tensor:
        """Returns the bias of each pair of a window, `[heads, window**2, window**2]`."""
        bias = self.relative_position_bias_table[self.relative_position_index]
        return bias.view(self.window**2, self.window**2, self.num_heads).permute(2, 0, 1)

    def additive_mask(self, grid: Grid, masks: ByShape, biases: ByShape) -> torch.Tensor:
        """Returns bias and mask of all windows of a map, `[1, windows * heads, window**2, window**2]`.

        Legacy masks are those of as many images as they repeat after. What is computed is kept in `biases`.
        """
        n, h, w = grid
        if (h, w) not in biases:
            bias, size = self.position_bias(), self.window
            if self.shift:
                bias = bias + masks[h, w].unsqueeze(-3)
            else:
                bias = bias.expand(-(-h // size) * -(-w // size), -1, -1, -1)
            biases[h, w] = bias.reshape(-1, -(-h // size) * -(-w // size) * self.num_heads, size**2, size**2)
        additive = biases[h, w]
        return additive if additive.shape[0] == 1 else additive.repeat(n // additive.shape[0], 1, 1, 1)

    def forward(
        self,
        hidden_states: torch.Tensor,
        norm: TokenFunction,
        grids: list[Grid],
        masks: ByShape,
        biases: ByShape,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, AttentionWeights]:
        """Attends inside the windows of each group.

        Args:
            hidden_states: packed tokens.
            norm: is applied to them first.
            masks: of shifted windows, see [`make_shift_mask`] and [`make_legacy_shift_masks`].
            biases: what earlier calls with other parts of the same batch have computed; the rest is added.
            output_attentions: also return the weights of each group `[n * windows, heads, window**2, window**2]`.
        """
        steps = self.attend_gathered if is_gathered(hidden_states) else self.attend_cut
        tokens, weights = steps(hidden_states, norm, grids, masks, biases, output_attentions)
        hidden_states = self.dropout(self.proj(tokens.view_as(hidden_states)))
        if not output_attentions:
            return hidden_states, None
        return hidden_states, weights[0] if len(weights) == 1 else cast(tuple[torch.Tensor, ...], tuple(weights))

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, output_attentions: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attends with heads `[B, heads, L, d]` and an additive mask: `[B, L, heads, d]`, and the weights."""
        function = attention_function(self.config, output_attentions)
        dropout = self.attention_dropout if self.training else 0.0
        with choose_biased_kernels(query):
            return function(self, query, key, value, mask, scaling=self.scaling, dropout=dropout)

    def attend_gathered(
        self,
        hidden_states: torch.Tensor,
        norm: TokenFunction,
        grids: list[Grid],
        masks: ByShape,
        biases: ByShape,
        output_attentions: bool,
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Gathers the rows of the projected tokens into windows, and back; see [`is_gathered`]."""
        layout = (grids, self.window, self.shift, self.num_heads)
        rows = recompute_inner(self.qkv, self.pad_after(norm, grids), hidden_states).reshape(-1, self.head_dim)
        windows = to_windows(rows, *layout)
        additive_masks = [self.additive_mask(grid, masks, biases) for grid in grids]
        sizes = [3 * n * mask.shape[1] * self.window**2 for (n, _, _), mask in zip(grids, additive_masks, strict=True)]
        outputs, weights = [], []
        for group, (n, _, _), mask in zip(windows.split(sizes), grids, additive_masks, strict=True):
            # Windows join the heads axis: one bias (and mask) per window and head is then broadcast over the images.
            query, key, value = group.view(3, n, mask.shape[1], self.window**2, self.head_dim).unbind(0)
            output, group_weights = self.attend(query, key, value, mask, output_attentions)
            outputs.append(output.transpose(1, 2).reshape(-1, self.head_dim))
            weights.append(group_weights)
        return to_tokens(outputs[0] if len(outputs) == 1 else torch.cat(outputs), *layout), weights

    def pad_after(self, norm: TokenFunction, grids: list[Grid]) -> TokenFunction:
        """Returns `norm`, followed by a row of zeros if windows need padding: that belongs *before* the projection."""
        if not is_padded(grids, self.window):
            return norm
        return lambda tokens: F.pad(norm(tokens).flatten(0, 1), (0, 0, 0, 1))

    def attend_cut(
        self,
        hidden_states: torch.Tensor,
        norm: TokenFunction,
        grids: list[Grid],
        masks: ByShape,
        biases: ByShape,
        output_attentions: bool,
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Cuts the tokens of each group into windows, of whose projections heads are views."""
        normed = to_autocast_type(norm(hidden_states))
        bias = self.pad_bias(normed.dtype)
        outputs, weights = [], []
        for group, grid in zip(split_groups(normed, grids), grids, strict=True):
            query, key, value = split_heads(self.qkv(cut_windows(group, self.window, self.shift)), self.num_heads)
            mask = self.window_mask(grid, masks, bias)
            output, group_weights = self.attend(query, key, value, mask, output_attentions)
            outputs.append(join_windows(output.flatten(2), grid, self.window, self.shift))
            weights.append(group_weights)
        return pack_groups(outputs), weights

    def pad_bias(self, dtype: torch.dtype) -> torch.Tensor:
        """Returns the bias of each pair of a window, in rows that are padded: `[heads, window**2, P]`."""
        size = self.window**2
        index = pad_rows(self.relative_position_index.view(size, size))
        return self.relative_position_bias_table.t().to(dtype)[:, index]

    def window_mask(self, grid: Grid, masks: ByShape, bias: torch.Tensor) -> torch.Tensor:
        """Adds the mask to a padded bias: `[1 or n * windows, heads, window**2, window**2]`, a view of padded rows."""
        n, h, w = grid
        masked = bias.unsqueeze(0)
        if self.shift:
            num_windows = -(-h // self.window) * -(-w // self.window)
            masked = (bias + pad_rows(masks[h, w]).unsqueeze(-3).to(bias.dtype)).flatten(0, -4)
            masked = masked.repeat(n * num_windows // len(masked), 1, 1, 1)
        return masked[..., : self.window**2]


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
        """Checks that an image of this size has a patch.

        Raises:
            EsViTInputError: it has none.
        """
        if min(height, width) < self.patch_size:
            raise EsViTInputError(
                f"An image of {height} x {width} pixels is smaller than one patch of {self.patch_size} x "
                f"{self.patch_size}; enlarge it first."
            )

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
