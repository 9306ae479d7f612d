# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""
The Swin backbone as EsViT uses it (arXiv 2106.09785, section 3.1; Swin: arXiv 2103.14030).

It differs from transformers' own Swin where published EsViT weights depend on it: window and shift of a stage are
fixed at construction and never follow the input, padding is not masked, every epsilon is `layer_norm_eps`, DropPath is
on both branches, and the patch embedding crops instead of padding.

A forward pass takes crops of several sizes at once. Their tokens are *packed*: one tensor `[1, T, C]` that holds group
after group, each group being `n` images of `h` x `w` tokens (a *grid*). Everything that works per token sees the packed
tensor once; only windows, masks and 2 x 2 merging go grid by grid. A single group stays `[n, h * w, C]`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_esvit import EsViTConfig
from .windows import Grid, is_padded, padded_size, to_tokens, to_windows


TokenFunction = Callable[[torch.Tensor], torch.Tensor]
AttentionWeights = torch.Tensor | tuple[torch.Tensor, ...] | None  # one tensor a group
ByShape = dict[tuple[int, int], torch.Tensor]  # something for each (rows, columns) of a grid

PART_TOKENS = 4096  # tokens that pass through a block at a time on a CPU, so that what it makes of them stays in cache


@dataclass
class EncoderOutput:
    """
    What a backbone returns for a list of crop groups.

    tokens: regions after the final norm, `[n, h * w, C]` for one group, else packed `[1, sum n * h * w, C]`.
    grids: one `(n, h, w)` a group.
    maps: `[n, C_s, h_s, w_s]` of the stem and each stage, if they were asked for.
    last_blocks: pooled outputs `[sum n, C_b]` of the last blocks, if they were asked for.
    """

    tokens: torch.Tensor
    grids: list[Grid]
    maps: tuple[torch.Tensor, ...] | None = None
    last_blocks: tuple[torch.Tensor, ...] = ()


def num_tokens(grids: list[Grid]) -> list[int]:
    return [n * h * w for n, h, w in grids]


def split_groups(tokens: torch.Tensor, grids: list[Grid]) -> list[torch.Tensor]:
    """`[B, T, C]`, packed or not, to one `[n, h, w, C]` a group."""
    groups = tokens.flatten(0, 1).split(num_tokens(grids)) if len(grids) > 1 else [tokens]
    return [group.reshape(n, h, w, tokens.shape[-1]) for group, (n, h, w) in zip(groups, grids, strict=True)]


def recomputed(linear: nn.Module, function: TokenFunction, x: torch.Tensor) -> torch.Tensor:
    """
    `linear(function(x))`. In training, what `function` (a norm, an activation) returns is not stored for the backward
    pass but computed there again: it costs little, and would be half of what a block stores.
    """
    if not (linear.training and torch.is_grad_enabled()):
        return linear(function(x))
    return checkpoint(lambda x: linear(function(x)), x, use_reentrant=False)


def pack_groups(groups: list[torch.Tensor]) -> torch.Tensor:
    """One `[n, ..., C]` a group to the packed tensor; a single group to `[n, T, C]`."""
    if len(groups) == 1:
        return groups[0].flatten(1, -2)
    return torch.cat([group.flatten(0, -2) for group in groups]).unsqueeze(0)


def image_parts(grids: list[Grid], limit: int) -> list[list[Grid]]:
    """The images of all groups, in order, in parts of at most `limit` tokens, or of one image where that has more."""
    parts: list[list[Grid]] = [[]]
    room = limit
    for n, h, w in grids:
        while n:
            taken = min(n, max(room // (h * w), 0 if parts[-1] else 1))
            if taken:
                parts[-1].append((taken, h, w))
            n, room = n - taken, room - taken * h * w
            if n:
                parts.append([])
                room = limit
    return parts


def pool_groups(tokens: torch.Tensor, grids: list[Grid]) -> torch.Tensor:
    """Mean over the tokens of each image: `[sum n, C]`, group after group."""
    return torch.cat([group.mean(dim=(1, 2)) for group in split_groups(tokens, grids)])


class EsViTDropPath(nn.Module):
    """Stochastic depth: one draw for each crop of each image, expanded to the tokens of that crop."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def draw(self, num_samples: int, like: torch.Tensor) -> torch.Tensor:
        """Factors `[num_samples]`: 0 with probability `rate`, else 1 / (1 - rate)."""
        keep = 1.0 - self.rate
        return like.new_empty(num_samples).bernoulli_(keep).div_(keep)

    def forward(self, grids: list[Grid], like: torch.Tensor) -> torch.Tensor | None:
        """The factor of each token of packed groups, `[T, 1]`; None if all are 1."""
        if self.rate == 0.0 or not self.training:
            return None
        factors = self.draw(sum(n for n, _, _ in grids), like).split([n for n, _, _ in grids])
        return torch.cat([f.repeat_interleave(h * w) for f, (_, h, w) in zip(factors, grids, strict=True)]).unsqueeze(1)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


class EsViTSwinPatchEmbed(nn.Module):
    """Patches of every group to packed tokens. Pixels beyond a multiple of the patch size are cropped."""

    def __init__(self, config: EsViTConfig):
        super().__init__()
        self.proj = nn.Conv2d(config.num_channels, config.embed_dim, config.patch_size, stride=config.patch_size)
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps) if config.patch_norm else nn.Identity()
        self.position_grid = config.patch_grid()
        num_positions = self.position_grid[0] * self.position_grid[1]
        self.absolute_pos_embed = (
            nn.Parameter(torch.empty(1, num_positions, config.embed_dim)) if config.use_absolute_embeddings else None
        )
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, crops: list[torch.Tensor]) -> tuple[torch.Tensor, list[Grid]]:
        maps = [self.proj(images).permute(0, 2, 3, 1) for images in crops]  # [n, h, w, E]
        grids = [(m.shape[0], m.shape[1], m.shape[2]) for m in maps]
        tokens = self.norm(pack_groups(maps))
        if self.absolute_pos_embed is not None:
            tokens = tokens + self.position_embedding(self.absolute_pos_embed, grids)
        return self.dropout(tokens), grids

    def position_embedding(self, embedding: torch.Tensor, grids: list[Grid]) -> torch.Tensor:
        """The learned embedding at each group's size, resized bicubically where that is not its own size."""
        image = embedding.unflatten(1, self.position_grid).permute(0, 3, 1, 2)
        resized = [
            image if (h, w) == self.position_grid else F.interpolate(image, size=(h, w), mode="bicubic")
            for _, h, w in grids
        ]
        return pack_groups(
            [r.permute(0, 2, 3, 1).expand(n, -1, -1, -1) for r, (n, _, _) in zip(resized, grids, strict=True)]
        )


def relative_position_index(window: int) -> torch.Tensor:
    """Row of the bias table for each (query, key) of a window: `[window**2 * window**2]`, flat."""
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    row_offset = rows[:, None] - rows[None, :] + window - 1
    column_offset = columns[:, None] - columns[None, :] + window - 1
    return (row_offset * (2 * window - 1) + column_offset).flatten()


def shift_mask(height: int, width: int, window: int, shift: int, like: torch.Tensor) -> torch.Tensor:
    """
    Additive mask of shifted windows on a padded map: -100 between tokens that the cyclic shift brought together from
    different parts of the image, else 0. Computed from the current map, which the original's training runs before
    October 2021 did not do. Returns `[windows, window**2, window**2]`.
    """

    def part(size: int) -> torch.Tensor:
        index = torch.arange(size, device=like.device)
        return (index >= size - window).long() + (index >= size - shift).long()

    label = 3 * part(height)[:, None] + part(width)[None, :]
    label = label.view(height // window, window, width // window, window).transpose(1, 2).reshape(-1, window**2)
    return torch.where(label[:, :, None] == label[:, None, :], 0.0, -100.0).to(like.dtype)


def eager_attention_forward(
    module: "EsViTSwinAttention",
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Plain attention `[B, windows * heads, L, d]` -> `[B, L, windows * heads, d]`. Also returns the weights, before
    dropout, as `[B * windows, heads, L, L]`: this very tensor is used, so that gradients with respect to it exist.
    """
    mask = attention_mask.expand(len(query), -1, -1, -1).flatten(0, 1)
    logits = torch.baddbmm(mask, query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2), alpha=scaling)
    precision = torch.promote_types(query.dtype, torch.float32)
    weights = logits.softmax(dim=-1, dtype=precision).to(query.dtype).view(-1, module.num_heads, *logits.shape[1:])
    dropped = F.dropout(weights, p=dropout, training=module.training).view_as(logits)
    return torch.bmm(dropped, value.flatten(0, 1)).unflatten(0, query.shape[:2]).transpose(1, 2), weights


class EsViTSwinAttention(nn.Module):
    """Multi-head self-attention inside (shifted) windows with a relative position bias."""

    relative_position_index: torch.Tensor

    def __init__(self, config: EsViTConfig, dim: int, num_heads: int, window: int, shift: int):
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
        self.register_buffer("relative_position_index", relative_position_index(window), persistent=False)

    def position_bias(self) -> torch.Tensor:
        """`[heads, window**2, window**2]`."""
        bias = self.relative_position_bias_table[self.relative_position_index]
        return bias.view(self.window**2, self.window**2, self.num_heads).permute(2, 0, 1)

    def additive_mask(self, grid: Grid, masks: ByShape, biases: ByShape) -> torch.Tensor:
        """Bias and mask of all windows of a map `[1, windows * heads, window**2, window**2]`, kept in `biases`."""
        n, h, w = grid
        if (h, w) not in biases:
            bias, size = self.position_bias(), self.window
            if self.shift:
                bias = bias + masks[h, w].unsqueeze(1)
            else:
                bias = bias.expand(-(-h // size) * -(-w // size), -1, -1, -1)
            biases[h, w] = bias.reshape(1, -1, size**2, size**2)
        return biases[h, w]

    def forward(
        self,
        hidden_states: torch.Tensor,
        norm: TokenFunction,
        grids: list[Grid],
        masks: ByShape,
        biases: ByShape,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, AttentionWeights]:
        """
        Args:
            hidden_states: packed tokens.
            norm: is applied to them first.
            masks: of shifted windows, see [`shift_mask`].
            biases: what earlier calls with other parts of the same batch have computed; the rest is added.
            output_attentions: also return the weights of each group `[n * windows, heads, window**2, window**2]`.
        """
        # Fused kernels do not return weights, so a request for them is answered by the plain form.
        name = "eager" if output_attentions else self.config._attn_implementation
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention_forward)
        layout = (grids, self.window, self.shift, self.num_heads)
        rows = recomputed(self.qkv, self.padded(norm, grids), hidden_states).reshape(-1, self.head_dim)
        windows = to_windows(rows, *layout)
        additive_masks = [self.additive_mask(grid, masks, biases) for grid in grids]
        sizes = [3 * n * mask.shape[1] * self.window**2 for (n, _, _), mask in zip(grids, additive_masks, strict=True)]
        dropout = self.attention_dropout if self.training else 0.0
        outputs: list[torch.Tensor] = []
        weights: list[torch.Tensor] = []
        for group, (n, _, _), mask in zip(windows.split(sizes), grids, additive_masks, strict=True):
            # Windows join the heads axis: one bias (and mask) per window and head is then broadcast over the images.
            query, key, value = group.view(3, n, mask.shape[1], self.window**2, self.head_dim).unbind(0)
            output, group_weights = attend(self, query, key, value, mask, scaling=self.scaling, dropout=dropout)
            outputs.append(output.transpose(1, 2).reshape(-1, self.head_dim))
            if group_weights is not None:
                weights.append(group_weights)
        tokens = to_tokens(outputs[0] if len(outputs) == 1 else torch.cat(outputs), *layout)
        hidden_states = self.dropout(self.proj(tokens.view_as(hidden_states)))
        if not output_attentions:
            return hidden_states, None
        return hidden_states, weights[0] if len(weights) == 1 else tuple(weights)

    def padded(self, norm: TokenFunction, grids: list[Grid]) -> TokenFunction:
        """`norm`, and a row of zeros after it if windows need padding, which belongs *before* the projection."""
        if not is_padded(grids, self.window):
            return norm
        return lambda tokens: F.pad(norm(tokens).flatten(0, 1), (0, 0, 0, 1))


class EsViTSwinMLP(nn.Module):
    def __init__(self, config: EsViTConfig, dim: int):
        super().__init__()
        hidden = int(dim * config.mlp_ratio)
        self.fc1 = nn.Linear(dim, hidden)
        self.act = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor, norm: TokenFunction) -> torch.Tensor:
        """Any `[..., C]`; `norm` is applied first."""
        hidden = recomputed(self.fc1, norm, hidden_states)
        return self.dropout(recomputed(self.fc2, lambda hidden: self.dropout(self.act(hidden)), hidden))


def add_branch(tokens: torch.Tensor, branch: torch.Tensor, factors: torch.Tensor | None) -> torch.Tensor:
    return tokens + branch if factors is None else torch.addcmul(tokens, branch, factors)


class EsViTSwinLayer(GradientCheckpointingLayer):
    """A block: window attention and MLP, each pre-normed, residual and under DropPath."""

    def __init__(self, config: EsViTConfig, dim: int, num_heads: int, window: int, shift: int, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.attn = EsViTSwinAttention(config, dim, num_heads, window, shift)
        self.norm2 = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.mlp = EsViTSwinMLP(config, dim)
        self.drop_path = EsViTDropPath(drop_path)

    def forward(
        self, hidden_states: torch.Tensor, grids: list[Grid], masks: ByShape, output_attentions: bool = False
    ) -> tuple[torch.Tensor, AttentionWeights]:
        in_parts = hidden_states.device.type == "cpu" and not output_attentions and not torch.compiler.is_compiling()
        parts = image_parts(grids, PART_TOKENS) if in_parts else [grids]
        lengths = [sum(num_tokens(part)) for part in parts]
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
        return torch.cat(outputs).view_as(hidden_states), weights


class EsViTSwinPatchMerging(nn.Module):
    """2 x 2 tokens to one of twice the width; odd maps are zero-padded at the bottom and right."""

    def __init__(self, config: EsViTConfig, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=config.layer_norm_eps)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, hidden_states: torch.Tensor, grids: list[Grid]) -> tuple[torch.Tensor, list[Grid]]:
        merged = recomputed(self.reduction, lambda tokens: self.norm(self.merge(tokens, grids)), hidden_states)
        return merged, [(n, (h + 1) // 2, (w + 1) // 2) for n, h, w in grids]

    @staticmethod
    def merge(hidden_states: torch.Tensor, grids: list[Grid]) -> torch.Tensor:
        """`[..., C]` -> `[..., 4C]`, a quarter as many tokens."""
        merged = []
        for group in split_groups(hidden_states, grids):
            group = F.pad(group, (0, 0, 0, group.shape[2] % 2, 0, group.shape[1] % 2))
            corners = [group[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
            merged.append(torch.cat(corners, dim=-1))
        return pack_groups(merged)


class EsViTSwinStage(nn.Module):
    """Blocks of one resolution, then (but for the last stage) patch merging."""

    def __init__(self, config: EsViTConfig, index: int, drop_path: list[float]):
        super().__init__()
        dim = config.embed_dim * 2**index
        self.window, self.shift = config.stage_window(index)
        self.blocks = nn.ModuleList(
            EsViTSwinLayer(config, dim, config.num_heads[index], self.window, self.shift if block % 2 else 0, rate)
            for block, rate in enumerate(drop_path)
        )
        is_last = index == len(config.depths) - 1
        self.downsample = None if is_last else EsViTSwinPatchMerging(config, dim)

    def shift_masks(self, grids: list[Grid], like: torch.Tensor) -> ByShape:
        """The masks of the shifted blocks; none in a stage without shift."""
        if not self.shift:
            return {}
        return {(h, w): shift_mask(*padded_size(h, w, self.window), self.window, self.shift, like) for _, h, w in grids}

    def forward(
        self, hidden_states: torch.Tensor, grids: list[Grid], output_attentions: bool = False, last_blocks: int = 0
    ) -> tuple[torch.Tensor, list[Grid], torch.Tensor, list[torch.Tensor]]:
        """Returns tokens and grids after merging, the tokens before it, and those of the last `last_blocks` blocks."""
        masks = self.shift_masks(grids, hidden_states)
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
    """Patch embedding, stages, final norm."""

    def __init__(self, config: EsViTConfig):
        super().__init__()
        num_blocks = sum(config.depths)
        rates = [config.drop_path_rate * i / max(num_blocks - 1, 1) for i in range(num_blocks)]
        starts = [sum(config.depths[:stage]) for stage in range(len(config.depths))]
        self.depths = config.depths
        self.num_features = [config.embed_dim * 2**stage for stage in range(len(config.depths))]
        self.patch_embed = EsViTSwinPatchEmbed(config)
        self.layers = nn.ModuleList(
            EsViTSwinStage(config, stage, rates[start : start + depth])
            for stage, (start, depth) in enumerate(zip(starts, config.depths, strict=True))
        )
        self.norm = nn.LayerNorm(self.num_features[-1], eps=config.layer_norm_eps)

    def forward(
        self,
        crops: list[torch.Tensor],
        output_attentions: bool = False,
        output_maps: bool = False,
        before_merging: bool = False,
        last_blocks: int = 0,
    ) -> EncoderOutput:
        """
        Args:
            crops: one tensor `[n, channels, height, width]` a group.
            output_attentions: have each block compute its attention weights (recorded by the model).
            output_maps: also return the maps of stem and stages (one group only).
            before_merging: those maps are taken before patch merging, at the stage's own resolution.
            last_blocks: also return the pooled outputs of this many last blocks, counted over all stages.
        """
        tokens, grids = self.patch_embed(crops)
        maps = [self.to_map(tokens, grids)] if output_maps else []
        pooled: list[torch.Tensor] = []
        for index, stage in enumerate(self.layers):
            wanted = max(last_blocks - sum(self.depths[index + 1 :]), 0)
            stage_grids = grids
            tokens, grids, unmerged, blocks = stage(tokens, grids, output_attentions, wanted)
            if output_maps:
                maps.append(self.to_map(unmerged, stage_grids) if before_merging else self.to_map(tokens, grids))
            is_last = index == len(self.layers) - 1
            pooled += [pool_groups(self.norm(block) if is_last else block, stage_grids) for block in blocks]
        return EncoderOutput(self.norm(tokens), grids, tuple(maps) if output_maps else None, tuple(pooled))

    @staticmethod
    def to_map(tokens: torch.Tensor, grids: list[Grid]) -> torch.Tensor:
        (group,) = split_groups(tokens, grids)
        return group.permute(0, 3, 1, 2).contiguous()
