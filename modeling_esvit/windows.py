# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""
From tokens to (shifted, padded) windows and back, each way in one gather.

Padding, cyclic shift, window partition and the split into heads only move rows of `head_dim` values about. One gather
does all of it at once; and because no row is used twice but the one that padding is made of, the gradient of a gather
is another gather.
"""

import functools
from typing import NamedTuple

import torch


Grid = tuple[int, int, int]  # images, rows, columns


class WindowIndex(NamedTuple):
    """
    Where rows go, for groups of images one after the other. T tokens, of which one more, the last, stands for padding
    if there is any; M = sum over groups of n * windows * heads * window**2.

    to_windows: `[3 M]`, for each row of each group's q, k, v `[3, n, windows, heads, window**2]` the row of the
        projected tokens `[T + 1, 3, heads]`.
    from_windows: `[3 T heads]`, for each row of the projected tokens, without padding, its row among the windows.
    padding: `[3 heads, P]`, those rows of the windows that are padding.
    to_tokens: `[T heads]`, for each row of the tokens `[T, heads]` the row of the groups' outputs
        `[n, windows, heads, window**2]`.
    from_tokens: `[M]`, the other way round; 0 where there is padding.
    output_padding: `[heads P]`, the rows of the outputs that belong to padding.
    """

    to_windows: torch.Tensor
    from_windows: torch.Tensor
    padding: torch.Tensor
    to_tokens: torch.Tensor
    from_tokens: torch.Tensor
    output_padding: torch.Tensor


def is_padded(grids: list[Grid], window: int) -> bool:
    return any(h % window or w % window for _, h, w in grids)


def padded_size(height: int, width: int, window: int) -> tuple[int, int]:
    return height + -height % window, width + -width % window


def window_positions(rows: torch.Tensor, columns: torch.Tensor, size: tuple[int, int], window: int, shift: int):
    """The place of the cell (row, column) of a padded map of `size` after shift and partition, window after window."""
    height, width = size
    rows, columns = (rows - shift) % height, (columns - shift) % width
    index = (rows // window) * (width // window) + columns // window
    return (index * window + rows % window) * window + columns % window


def cell_positions(height: int, width: int, window: int, shift: int, device: torch.device):
    """Places of the tokens of a map, row by row `[height * width]`, and of its padding `[P]`."""
    size = padded_size(height, width, window)

    def block(rows: tuple[int, int], columns: tuple[int, int]) -> torch.Tensor:
        row = torch.arange(*rows, device=device)[:, None]
        column = torch.arange(*columns, device=device)[None, :]
        return window_positions(row, column, size, window, shift).flatten()

    right = block((0, height), (width, size[1]))
    bottom = block((height, size[0]), (0, size[1]))
    return block((0, height), (0, width)), torch.cat([right, bottom])


def cells_of_positions(size: tuple[int, int], window: int, shift: int, device: torch.device):
    """The other way round: the row and the column of the cell at each place, `[cells]` each."""
    height, width = size
    position = torch.arange(height * width, device=device)
    index, inside = position // window**2, position % window**2
    row = index // (width // window) * window + inside // window
    column = index % (width // window) * window + inside % window
    return (row + shift) % height, (column + shift) % width


def with_heads(places: torch.Tensor, images: int, length: int, heads: int, cells: int) -> torch.Tensor:
    """Places in the windows of one image `[cells]` -> rows of `[n, windows, heads, length]`: `[n, cells, heads]`."""
    window, inside = places // length, places % length
    head = torch.arange(heads, device=places.device)
    rows = (window[:, None] * heads + head) * length + inside[:, None]
    return torch.arange(images, device=places.device)[:, None, None] * (cells * heads) + rows


def group_index(
    grid: Grid, window: int, shift: int, heads: int, device: torch.device, *, tokens: range, first_output: int
) -> WindowIndex:
    """
    The index of one group.

    Args:
        tokens: from the group's first token to the number of all tokens, which is the row of the padding.
        first_output: rows of the outputs before this group's.
    """
    n, h, w = grid
    height, width = padded_size(h, w, window)
    cells, length = height * width, window**2
    three, head, image = (torch.arange(count, device=device) for count in (3, heads, n))
    places, pad_places = cell_positions(h, w, window, shift, device)
    outputs = with_heads(places, n, length, heads, cells)  # [n, h * w, heads]
    pads = with_heads(pad_places, n, length, heads, cells).flatten(0, 1)  # [P, heads]
    stacked = 3 * first_output + three * (n * cells * heads)  # first rows of q, k and v
    row, column = cells_of_positions((height, width), window, shift, device)
    is_pad = ((row >= h) | (column >= w)).view(-1, 1, length)
    token = (row * w + column).view(-1, 1, length)
    token = tokens.start + image[:, None, None, None] * (h * w) + token  # [n, windows, 1, length]
    source = torch.where(is_pad, tokens.stop, token) * (3 * heads) + head[:, None]
    return WindowIndex(
        to_windows=(three.view(3, 1, 1, 1, 1) * heads + source).flatten(),
        from_windows=(stacked[:, None] + outputs[:, :, None, :]).flatten(),
        padding=(stacked[:, None, None] + pads.T).flatten(0, 1),
        to_tokens=(first_output + outputs).flatten(),
        from_tokens=torch.where(is_pad, 0, token * heads + head[:, None]).flatten(),
        output_padding=(first_output + pads).flatten(),
    )


def make_window_index(
    grids: tuple[Grid, ...], window: int, shift: int, heads: int, device: torch.device
) -> WindowIndex:
    num_tokens = sum(n * h * w for n, h, w in grids)
    groups = []
    first_token = first_output = 0
    for n, h, w in grids:
        tokens = range(first_token, num_tokens)
        group = group_index((n, h, w), window, shift, heads, device, tokens=tokens, first_output=first_output)
        groups.append(group)
        first_token += n * h * w
        first_output += len(group.from_tokens)
    return WindowIndex(*(torch.cat(parts, dim=-1) for parts in zip(*groups, strict=True)))


@functools.lru_cache(maxsize=256)
def window_index(grids: tuple[Grid, ...], window: int, shift: int, heads: int, device: torch.device) -> WindowIndex:
    """[`make_window_index`], kept for the next batch of the same shapes."""
    with torch.inference_mode(False):  # what inference has made may serve training later
        return make_window_index(grids, window, shift, heads, device)


class ToWindows(torch.autograd.Function):
    """Projected tokens `[(T + 1) * 3 * heads, d]` -> `[3 M, d]`; see [`WindowIndex`]."""

    @staticmethod
    def forward(ctx, rows, to_windows, from_windows, padding):
        ctx.save_for_backward(from_windows, padding)
        return rows.index_select(0, to_windows)

    @staticmethod
    def backward(ctx, grad):
        from_windows, padding = ctx.saved_tensors
        result = grad.index_select(0, from_windows)
        if padding.numel():
            pads = grad.index_select(0, padding.flatten()).unflatten(0, padding.shape)
            result = torch.cat([result, pads.sum(dim=1)])
        return result, None, None, None


class ToTokens(torch.autograd.Function):
    """Attention outputs `[M, d]` -> `[T * heads, d]`; see [`WindowIndex`]. What belongs to padding is dropped."""

    @staticmethod
    def forward(ctx, rows, to_tokens, from_tokens, output_padding):
        ctx.save_for_backward(from_tokens, output_padding)
        return rows.index_select(0, to_tokens)

    @staticmethod
    def backward(ctx, grad):
        from_tokens, output_padding = ctx.saved_tensors
        return grad.index_select(0, from_tokens).index_fill(0, output_padding, 0), None, None, None


def to_windows(rows: torch.Tensor, grids: list[Grid], window: int, shift: int, heads: int) -> torch.Tensor:
    """
    Rows of projected tokens `[(T + 1) * 3 * heads, d]`, the last token only if [`is_padded`] -> `[3 M, d]`, for each
    group q, k and v `[3, n, windows, heads, window**2]`.
    """
    if torch.compiler.is_compiling():
        return cut_windows(rows, grids, window, shift, heads)
    index = window_index(tuple(grids), window, shift, heads, rows.device)
    return ToWindows.apply(rows, index.to_windows, index.from_windows, index.padding)


def to_tokens(rows: torch.Tensor, grids: list[Grid], window: int, shift: int, heads: int) -> torch.Tensor:
    """Rows of outputs `[M, d]`, for each group `[n, windows, heads, window**2]` -> `[T * heads, d]`."""
    if torch.compiler.is_compiling():
        return join_windows(rows, grids, window, shift, heads)
    index = window_index(tuple(grids), window, shift, heads, rows.device)
    return ToTokens.apply(rows, index.to_tokens, index.from_tokens, index.output_padding)


def cut_windows(rows: torch.Tensor, grids: list[Grid], window: int, shift: int, heads: int) -> torch.Tensor:
    """[`to_windows`] step by step: a compiler makes one pass of it, but cannot see through an index."""
    tokens = rows.view(-1, 3 * heads * rows.shape[-1])
    sizes = [n * h * w for n, h, w in grids]
    windows = []
    for group, (n, h, w) in zip(tokens[: sum(sizes)].split(sizes), grids, strict=True):
        height, width = padded_size(h, w, window)
        image = group.view(n, h, w, -1)
        image = torch.cat([image, tokens[-1].expand(n, h, width - w, -1)], dim=2) if width > w else image
        image = torch.cat([image, tokens[-1].expand(n, height - h, width, -1)], dim=1) if height > h else image
        image = image.roll((-shift, -shift), dims=(1, 2)) if shift else image
        image = image.view(n, height // window, window, width // window, window, 3, heads, -1)
        windows.append(image.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(-1, rows.shape[-1]))
    return torch.cat(windows)


def join_windows(rows: torch.Tensor, grids: list[Grid], window: int, shift: int, heads: int) -> torch.Tensor:
    """[`to_tokens`] step by step."""
    padded = [(n, *padded_size(h, w, window)) for n, h, w in grids]
    tokens = []
    groups = rows.split([n * height * width * heads for n, height, width in padded])
    for group, (n, h, w), (_, height, width) in zip(groups, grids, padded, strict=True):
        image = group.view(n, height // window, width // window, heads, window, window, -1)
        image = image.permute(0, 1, 4, 2, 5, 3, 6).reshape(n, height, width, -1)
        image = image.roll((shift, shift), dims=(1, 2)) if shift else image
        tokens.append(image[:, :h, :w].reshape(-1, rows.shape[-1]))
    return torch.cat(tokens)
