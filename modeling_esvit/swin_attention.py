# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the attention of Swin, inside (shifted, padded) windows of packed tokens, as EsViT uses it.

On a CPU the rows of the projected tokens are gathered into windows and back; elsewhere windows are cut before the
projection. Which of the two, [`is_gathered`] says.
"""

from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from .attention import attention_function, choose_biased_kernels, to_autocast_type
from .tokens import AttentionWeights, Grid, TokenFunction, pack_groups, recompute_inner, split_groups
from .windows import (
    cut_windows,
    index_relative_positions,
    is_gathered,
    is_padded,
    join_windows,
    pad_rows,
    split_heads,
    to_tokens,
    to_windows,
)


if TYPE_CHECKING:
    from .configuration_esvit import EsViTConfig


ByShape = dict[tuple[int, int], torch.Tensor]  # something for each (rows, columns) of a grid


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
        if is_gathered(hidden_states):
            additive_masks = [self.additive_mask(grid, masks, biases) for grid in grids]
            tokens, weights = self.attend_gathered(hidden_states, norm, grids, additive_masks, output_attentions)
        else:
            normed = to_autocast_type(norm(hidden_states))
            bias = self.pad_bias(normed.dtype)
            window_masks = [self.window_mask(grid, masks, bias) for grid in grids]
            tokens, weights = self.attend_cut(normed, grids, window_masks, output_attentions)
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
        masks: list[torch.Tensor],
        output_attentions: bool,
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Gathers the rows of the projected tokens into windows, and back; see [`is_gathered`]."""
        layout = (grids, self.window, self.shift, self.num_heads)
        rows = recompute_inner(self.qkv, self.pad_after(norm, grids), hidden_states).reshape(-1, self.head_dim)
        windows = to_windows(rows, *layout)
        sizes = [3 * n * mask.shape[1] * self.window**2 for (n, _, _), mask in zip(grids, masks, strict=True)]
        outputs, weights = [], []
        for group, (n, _, _), mask in zip(windows.split(sizes), grids, masks, strict=True):
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
        self, normed: torch.Tensor, grids: list[Grid], masks: list[torch.Tensor], output_attentions: bool
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Cuts the normalized tokens of each group into windows, of whose projections heads are views."""
        outputs, weights = [], []
        for group, grid, mask in zip(split_groups(normed, grids), grids, masks, strict=True):
            query, key, value = split_heads(self.qkv(cut_windows(group, self.window, self.shift)), self.num_heads)
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
