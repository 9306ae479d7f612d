# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the two attentions of ViL, the multi-scale Vision Longformer (arXiv 2103.15358), as EsViT uses them.

A map of h x w tokens is cut into *chunks* of W x W. In sparse attention a local token sees all global tokens and the
real tokens of the 3 x 3 chunks around its own; global tokens see everything. The keys of each chunk are gathered, so
that memory grows with the number of tokens, not with its square. Full attention is dense.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init

from .attention import attention_function
from .windows import index_relative_positions


if TYPE_CHECKING:
    from .configuration_esvit import EsViTConfig


PART_TOKENS = 4096  # local tokens that a CPU takes at a time
OWN = 4  # the place of a query's chunk among the 3 x 3 around it, row by row
Place = int | torch.Tensor  # one of these places; `[1]` on the device if it was drawn
SparseWeights = tuple[torch.Tensor, torch.Tensor | None]


def find_axis_offsets(window: int) -> torch.Tensor:
    """Returns the row (or column) of a query minus that of a key of three chunks: `[window, 3 * window]`."""
    return torch.arange(window)[:, None] - torch.arange(-window, 2 * window)[None, :]


def index_chunk_positions(window: int) -> torch.Tensor:
    """Returns the row of the bias table for each query and key of the 3 x 3 chunks: `[W**2, 9 * W**2]`."""
    index = find_axis_offsets(window) + 2 * window - 1
    rows, columns = (index.view(window, 3, window) for _ in range(2))  # query, chunk, key
    index = rows[:, None, :, None, :, None] * (4 * window - 1) + columns[None, :, None, :, None, :]
    return index.reshape(window**2, 9 * window**2)


def is_within_window(window: int) -> torch.Tensor:
    """Returns whether a key is at most `window` rows and columns away, in the layout of the position index."""
    near = (find_axis_offsets(window).abs() <= window).view(window, 3, window)
    near = near[:, None, :, None, :, None] & near[None, :, None, :, None, :]
    return near.reshape(window**2, 9 * window**2)


def to_chunks(features: torch.Tensor, window: int) -> torch.Tensor:
    """Cuts `[n, h, w, F]` into `[n, rows, columns, W**2, F]`, zero-padded at the bottom and right."""
    h, w = features.shape[1:3]
    padded = F.pad(features, (0, 0, 0, -w % window, 0, -h % window))
    chunks = padded.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # [n, rows, W, columns, W, F]
    return chunks.transpose(2, 3).flatten(3, 4)


def from_chunks(chunks: torch.Tensor, window: int, height: int, width: int) -> torch.Tensor:
    """Inverts [`to_chunks`]."""
    rows = chunks.unflatten(3, (window, window)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return rows[:, :height, :width]


def with_margin(chunks: torch.Tensor) -> torch.Tensor:
    """Adds one more chunk, of zeros, on each side of `[n, rows, columns, L, F]`."""
    return F.pad(chunks, (0, 0, 0, 0, 1, 1, 1, 1))


def take(features: torch.Tensor, dim: int, first: Place, size: int) -> torch.Tensor:
    """Returns `size` entries of a dimension, from `first` on."""
    if isinstance(first, int):
        return features.narrow(dim, first, size)
    return features.index_select(dim, first + torch.arange(size, device=features.device))


def neighbour(chunks: torch.Tensor, place: Place) -> torch.Tensor:
    """Returns the chunk at `place` of each: `[., n, rows + 2, columns + 2, ...]` -> `[., n, rows, ...]`."""
    rows, columns = chunks.shape[2] - 2, chunks.shape[3] - 2
    return take(take(chunks, 2, place // 3, rows), 3, place % 3, columns)


def to_heads(tokens: torch.Tensor, parts: int, num_heads: int) -> torch.Tensor:
    """Splits `[..., L, parts * heads * d]` into `[parts, ..., heads, L, d]`; keys and values are two parts."""
    return tokens.unflatten(-1, (parts, num_heads, -1)).movedim(-3, 0).transpose(-3, -2)


class EsViTViLAttention(nn.Module):
    """Holds what both attentions share: output projection, position biases, and the attention interface's call."""

    relative_position_index: torch.Tensor

    def __init__(self, config: "EsViTConfig", dim: int, num_heads: int, num_global: int, num_positions: int):
        """Builds what is shared. `num_positions` is the number of local position biases, 0 for no biases at all."""
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.num_global = num_global
        self.has_biases = num_positions > 0
        self.scaling = (dim // num_heads) ** -0.5
        self.is_causal = False
        self.proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        if self.has_biases:
            self.local_relative_position_bias_table = nn.Parameter(torch.empty(num_positions, num_heads))
        if self.has_biases and num_global:
            self.g2l_relative_position_bias = nn.Parameter(torch.empty(2, num_heads, num_global))
            self.g2g_relative_position_bias = nn.Parameter(torch.empty(num_heads, num_global, num_global))

    def init_weights(self, std: float) -> None:
        if self.has_biases:
            init.trunc_normal_(self.local_relative_position_bias_table, std=std)
        if self.has_biases and self.num_global:
            init.trunc_normal_(self.g2l_relative_position_bias, std=std)
            init.trunc_normal_(self.g2g_relative_position_bias, std=std)

    def global_bias(self, num_local: int) -> torch.Tensor:
        """Returns the biases of global queries and all keys, global ones first: `[heads, g, g + T]`."""
        to_local = self.g2l_relative_position_bias[0].unsqueeze(-1).expand(-1, -1, num_local)
        return torch.cat([self.g2g_relative_position_bias, to_local], dim=-1)

    def with_global_keys(self, bias: torch.Tensor) -> torch.Tensor:
        """Puts the biases of global keys before those of local ones, `[heads, L, K]`; queries are local."""
        if not self.has_biases:
            return F.pad(bias, (self.num_global, 0))
        if not self.num_global:
            return bias
        to_global = self.g2l_relative_position_bias[1].unsqueeze(1).expand(-1, bias.shape[1], -1)
        return torch.cat([to_global, bias], dim=-1)

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None,
        output_attentions: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attends with heads `[n, B, L, d]` and a bias `[1, B, L, K]`: `[n, L, B, d]`, and the weights if asked for."""
        function = attention_function(self.config, output_attentions)
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        return function(self, query, key, value, bias, scaling=self.scaling, dropout=dropout)


class EsViTViLFullAttention(EsViTViLAttention):
    """Computes dense attention over the global and local tokens of an image."""

    def __init__(
        self, config: "EsViTConfig", dim: int, num_heads: int, num_global: int, side: int, has_biases: bool = True
    ):
        super().__init__(config, dim, num_heads, num_global, (2 * side - 1) ** 2 if has_biases else 0)
        self.side = side
        self.qkv = nn.Linear(dim, 3 * dim, bias=config.qkv_bias)
        if has_biases:
            self.register_buffer("relative_position_index", index_relative_positions(side), persistent=False)

    def init_weights(self, std: float) -> None:
        super().init_weights(std)
        if self.has_biases:
            init.copy_(self.relative_position_index, index_relative_positions(self.side))

    def local_bias(self, num_local: int) -> torch.Tensor:
        """Returns the biases of local queries and keys, `[heads, T, T]`.

        For a map of another number of tokens than at construction, the matrix of biases is resized as if it were an
        image, as the published weights were trained. (That keeps rows apart but stretches columns.)
        """
        bias = self.local_relative_position_bias_table[self.relative_position_index]
        bias = bias.view(self.side**2, self.side**2, self.num_heads).permute(2, 0, 1)
        if num_local == self.side**2:
            return bias
        return F.interpolate(bias.unsqueeze(0), size=(num_local, num_local), mode="bicubic").squeeze(0)

    def bias(self, num_local: int) -> torch.Tensor | None:
        """Returns the biases of all queries and keys, `[1, heads, g + T, g + T]`, if there are any."""
        if not self.has_biases:
            return None
        bias = self.with_global_keys(self.local_bias(num_local))
        if self.num_global:
            bias = torch.cat([self.global_bias(num_local), bias], dim=1)
        return bias.unsqueeze(0)

    def forward(
        self, tokens: torch.Tensor, height: int, width: int, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Transforms `[n, g + height * width, C]`.

        Also returns the weights `[n, heads, g + T, g + T]` if they are asked for.
        """
        query, key, value = to_heads(self.qkv(tokens), 3, self.num_heads)
        output, weights = self.attend(query, key, value, self.bias(height * width), output_attentions)
        return self.dropout(self.proj(output.flatten(2))), weights


class EsViTViLSparseAttention(EsViTViLAttention):
    """Computes attention of local tokens to global ones and the chunks around, and of global tokens to all.

    `mode` says which chunks: 0 all nine, -1 only the own. Above 0, each call in training draws one of the eight
    neighbours, which together with the own chunk is seen by the whole batch; evaluation uses all nine. With an exact
    window, what is more than W rows or columns from the query is hidden.
    """

    def __init__(self, config: "EsViTConfig", dim: int, num_heads: int, num_global: int, has_biases: bool = True):
        num_positions = (4 * config.window_size - 1) ** 2 if has_biases else 0
        super().__init__(config, dim, num_heads, num_global, num_positions)
        self.window = config.window_size
        self.mode = config.vil_mode
        self.exact_window = config.vil_exact_window
        self.query = nn.Linear(dim, dim, bias=config.qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=config.qkv_bias)
        self.has_global_weights = bool(num_global) and not config.vil_shared_weights
        if self.has_global_weights:
            self.query_global = nn.Linear(dim, dim, bias=config.qkv_bias)
            self.kv_global = nn.Linear(dim, 2 * dim, bias=config.qkv_bias)
            self.proj_global = nn.Linear(dim, dim)
        if has_biases:
            self.register_buffer("relative_position_index", index_chunk_positions(self.window), persistent=False)

    def init_weights(self, std: float) -> None:
        super().init_weights(std)
        if self.has_biases:
            init.copy_(self.relative_position_index, index_chunk_positions(self.window))

    def places(self, device: torch.device) -> list[Place]:
        """Returns the chunks that each query sees, by their places in the 3 x 3 around it."""
        if self.mode == -1:
            return [OWN]
        return [OWN, self.draw(device)] if self.mode > 0 and self.training else list(range(9))

    def draw(self, device: torch.device) -> torch.Tensor:
        """Draws the place of one neighbour, `[1]`, from torch's generator, whose state checkpoints keep."""
        direction = torch.randint(8, (1,), device=device)
        return direction + (direction >= OWN)

    def local_bias(self, places: list[Place]) -> torch.Tensor:
        """Returns the biases of queries and keys of any chunk, `[heads, W**2, len(places) * W**2]`; zeros for none."""

        def by_key(index: torch.Tensor) -> torch.Tensor:
            by_place = index.view(self.window**2, 9, self.window**2)
            return torch.cat([take(by_place, 1, place, 1) for place in places], dim=1).flatten(1)

        if self.has_biases:
            bias = self.local_relative_position_bias_table[by_key(self.relative_position_index)].permute(2, 0, 1)
        else:
            bias = self.proj.weight.new_zeros(self.num_heads, self.window**2, len(places) * self.window**2)
        if self.exact_window:
            near = is_within_window(self.window).to(bias.device)
            bias = bias.masked_fill(~by_key(near), -torch.inf)
        return bias

    def bias(self, places: list[Place], height: int, width: int) -> torch.Tensor:
        """Returns the biases of all queries, chunk by chunk: `[1, B, W**2, K]`.

        Padding and what is outside of the map is hidden.
        """
        bias = self.with_global_keys(self.local_bias(places))
        real = to_chunks(torch.ones(1, height, width, 1, device=bias.device), self.window)
        seen = self.gather(with_margin(real).unsqueeze(0), places)
        hidden = F.pad(seen.view(-1, 1, 1, seen.shape[-2]) == 0, (self.num_global, 0))
        return torch.where(hidden, -torch.inf, bias).flatten(0, 1).unsqueeze(0)

    @staticmethod
    def gather(chunks: torch.Tensor, places: list[Place], *before: torch.Tensor) -> torch.Tensor:
        """Joins the chunks around each: `[., n, rows + 2, columns + 2, ..., L, d]` -> `[., n, rows, ..., K, d]`."""
        return torch.cat([*before, *(neighbour(chunks, place) for place in places)], dim=-2)

    def local_attention(
        self, query: torch.Tensor, keys: torch.Tensor, height: int, width: int, output_attentions: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attends from local queries `[n, T, C]` to keys and values `[n, g + T, 2C]` of all: `[n, T, C]`.

        Also returns the weights `[n * chunks, heads, W**2, K]` if they are asked for.
        """
        places = self.places(query.device)
        bias = self.bias(places, height, width)
        # As in Swin, a CPU takes a batch in parts, so that the keys that are gathered stay in its cache.
        in_parts = query.device.type == "cpu" and not output_attentions and not torch.compiler.is_compiling()
        size = max(PART_TOKENS // (height * width), 1)
        parts = list(zip(query.split(size), keys.split(size), strict=True)) if in_parts else [(query, keys)]
        outputs, weights = zip(
            *(self.part_attention(q, kv, bias, places, height, width, output_attentions) for q, kv in parts),
            strict=True,
        )
        return torch.cat(outputs), weights[0] if output_attentions else None

    def part_attention(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        bias: torch.Tensor,
        places: list[Place],
        height: int,
        width: int,
        output_attentions: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Does the same for some of the images."""
        queries = to_heads(to_chunks(query.unflatten(1, (height, width)), self.window), 1, self.num_heads)[0]
        rows, columns = queries.shape[1:3]
        to_all = to_heads(keys[:, : self.num_global], 2, self.num_heads)[:, :, None, None]
        local = to_chunks(keys[:, self.num_global :].unflatten(1, (height, width)), self.window)
        chunks = to_heads(with_margin(local), 2, self.num_heads)
        gathered = self.gather(chunks, places, to_all.expand(-1, -1, rows, columns, -1, -1, -1))
        key, value = gathered.flatten(2, 4)  # [n, chunks * heads, K, d]: one bias serves all images
        output, weights = self.attend(queries.flatten(1, 3), key, value, bias, output_attentions)
        merged = output.unflatten(2, (rows, columns, self.num_heads)).movedim(1, 3).flatten(4)
        return from_chunks(merged, self.window, height, width).flatten(1, 2), weights

    def global_attention(
        self, query: torch.Tensor, keys: torch.Tensor, output_attentions: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attends from global queries `[n, g, C]` to all keys: `[n, g, C]`.

        Also returns the weights `[n, heads, g, g + T]`.
        """
        queries = to_heads(query, 1, self.num_heads)[0]
        key, value = to_heads(keys, 2, self.num_heads)
        bias = self.global_bias(keys.shape[1] - self.num_global).unsqueeze(0) if self.has_biases else None
        output, weights = self.attend(queries, key, value, bias, output_attentions)
        return output.flatten(2), weights

    def forward(
        self, tokens: torch.Tensor, height: int, width: int, output_attentions: bool = False
    ) -> tuple[torch.Tensor, SparseWeights | None]:
        """Transforms `[n, g + height * width, C]`.

        If they are asked for, also returns the weights of local queries `[n * chunks, heads, W**2, K]` and of global
        queries `[n, heads, g, g + T]` (None without global tokens). The K keys of a chunk are the global ones, then the
        chunks around it, row by row, with zeros for what is hidden.
        """
        query, keys = self.query(tokens), self.kv(tokens)
        local = (query[:, self.num_global :], keys, height, width, output_attentions)
        output, weights = self.local_attention(*local)
        global_weights = None
        if self.has_global_weights:
            query, keys = self.query_global(tokens[:, : self.num_global]), self.kv_global(tokens)
        if self.num_global:
            to_all, global_weights = self.global_attention(query[:, : self.num_global], keys, output_attentions)
        if self.has_global_weights:
            output = torch.cat([self.proj_global(to_all), self.proj(output)], dim=1)
        else:
            output = self.proj(torch.cat([to_all, output], dim=1) if self.num_global else output)
        return self.dropout(output), None if weights is None else (weights, global_weights)
