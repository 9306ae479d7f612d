# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Moves tokens into (shifted, padded) windows and back, and says which pairs of a window may attend.

Padding, cyclic shift, window partition and the split into heads only move rows of `head_dim` values about. On a CPU one
gather does all of it at once, after the projection. No row is used twice but the one that padding is made of, so the
gradient of a gather is another gather. Elsewhere the steps are taken one by one, before the projection, where tokens
are a third as wide; so they are for a compiler, which fuses them but cannot see through an index.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from .tokens import EsViTInputError, Grid


class WindowIndex(NamedTuple):
    """Says where rows go, for groups of images one after the other.

    There are T tokens, and one more, the last, that stands for padding if there is any. M is the sum over groups of
    n * windows * heads * window**2.

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
    """Returns whether windows of some group need padding."""
    return any(h % window or w % window for _, h, w in grids)


def compute_padded_size(height: int, width: int, window: int) -> tuple[int, int]:
    """Returns the height and width of a map after padding to whole windows."""
    return height + -height % window, width + -width % window


def find_window_positions(height: int, width: int, window: int, shift: int) -> np.ndarray:
    """Returns the place of each cell of a padded map after shift and partition: `[height, width]`."""
    rows, columns = np.ix_((np.arange(height) - shift) % height, (np.arange(width) - shift) % width)
    index = (rows // window) * (width // window) + columns // window
    return (index * window + rows % window) * window + columns % window


def index_relative_positions(window: int) -> torch.Tensor:
    """Returns the row of the bias table for each (query, key) of a window: `[window**4]`, flat."""
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    row_offset = rows[:, None] - rows[None, :] + window - 1
    column_offset = columns[:, None] - columns[None, :] + window - 1
    return (row_offset * (2 * window - 1) + column_offset).flatten()


def make_shift_mask(height: int, width: int, window: int, shift: int, like: torch.Tensor) -> torch.Tensor:
    """Returns the additive mask of shifted windows on a padded map: `[windows, window**2, window**2]`.

    It is -100 between tokens that the cyclic shift brought together from different parts of the image, else 0. It
    follows the current map, which the original's training runs before October 2021 did not do.
    """

    from_start = torch.arange(window, device=like.device) >= window - shift  # brought to the end by the shift
    apart = from_start[:, None] != from_start  # [window, window]

    def apart_in_last(windows: int) -> torch.Tensor:
        is_last = torch.arange(windows, device=like.device) == windows - 1
        return is_last[:, None, None] & apart  # [windows, window, window]

    rows, columns = apart_in_last(height // window), apart_in_last(width // window)
    hidden = rows[:, None, :, None, :, None] | columns[None, :, None, :, None, :]
    return torch.where(hidden, -100.0, 0.0).to(like.dtype).view(-1, window**2, window**2)


def make_legacy_shift_masks(
    grid: Grid, built: tuple[int, int], window: int, shift: int, like: torch.Tensor
) -> torch.Tensor:
    """Returns the masks of the original before October 2021: `[p, windows, window**2, window**2]`.

    In its training runs they were always the masks of the map at construction, `built`: window k of the list of all
    windows of all images has mask k modulo their number. p is the number of images after which they repeat.

    Raises:
        EsViTInputError: the images are no multiple of p, where the original raised too.
    """
    n, h, w = grid
    height, width = compute_padded_size(h, w, window)
    num_windows = height // window * (width // window)
    masks = make_shift_mask(*compute_padded_size(*built, window), window, shift, like)
    period = len(masks) // math.gcd(len(masks), num_windows)
    if n % period:
        raise EsViTInputError(
            f"legacy_shift_mask: {n} images of {h} x {w} tokens have {n * num_windows} windows, no multiple of the "
            f"{len(masks)} masks of the construction; make the number of images a multiple of {period}."
        )
    index = torch.arange(period * num_windows, device=like.device) % len(masks)
    return masks[index].unflatten(0, (period, num_windows))


def add_heads(places: np.ndarray, images: int, length: int, heads: int, cells: int) -> np.ndarray:
    """Turns places in the windows of one image `[p]` into rows of `[n, windows, heads, length]`: `[n, p, heads]`."""
    rows = (places[:, None] // length * heads + np.arange(heads)) * length + places[:, None] % length
    return np.arange(images)[:, None, None] * (cells * heads) + rows


def index_group(
    grid: Grid, window: int, shift: int, heads: int, *, tokens: range, first_output: int
) -> tuple[np.ndarray, ...]:
    """Computes the fields of [`WindowIndex`] for one group.

    Args:
        tokens: from the group's first token to the number of all tokens, which is the row of the padding.
        first_output: rows of the outputs before this group's.
    """
    n, h, w = grid
    height, width = compute_padded_size(h, w, window)
    cells, length = height * width, window**2
    three, head = np.arange(3), np.arange(heads)
    positions = find_window_positions(height, width, window, shift)
    is_token = np.zeros((height, width), dtype=bool)
    is_token[:h, :w] = True
    outputs = add_heads(positions[is_token], n, length, heads, cells)  # [n, h * w, heads]
    pads = add_heads(positions[~is_token], n, length, heads, cells).reshape(-1, heads)  # [P, heads]
    stacked = 3 * first_output + three * (n * cells * heads)  # first rows of q, k and v
    token_at = np.full(cells, -1)
    token_at[positions[is_token]] = np.arange(h * w)
    token = token_at.reshape(1, -1, 1, length)  # [1, windows, 1, length]
    row = tokens.start + np.arange(n)[:, None, None, None] * (h * w) + token
    source = np.where(token < 0, tokens.stop, row) * (3 * heads) + head[:, None]
    return (
        (three.reshape(3, 1, 1, 1, 1) * heads + source).ravel(),
        (stacked[:, None] + outputs[:, :, None, :]).ravel(),
        (stacked[:, None, None] + pads.T).reshape(3 * heads, -1),
        (first_output + outputs).ravel(),
        np.where(token < 0, 0, row * heads + head[:, None]).ravel(),
        (first_output + pads).ravel(),
    )


@functools.lru_cache(maxsize=64)
def index_windows(grids: tuple[Grid, ...], window: int, shift: int, heads: int) -> WindowIndex:
    """Computes the index of all groups, and keeps it for the next batch of the same shapes.

    A step of Swin-T needs about thirty. They are made with NumPy, so that no mode of torch that happens to be on leaves
    its mark on them.
    """
    num_tokens = sum(n * h * w for n, h, w in grids)
    groups = []
    first_token = first_output = 0
    for n, h, w in grids:
        tokens = range(first_token, num_tokens)
        groups.append(index_group((n, h, w), window, shift, heads, tokens=tokens, first_output=first_output))
        first_token += n * h * w
        first_output += len(groups[-1][4])
    with torch.inference_mode(False):  # what inference has made may serve training later
        return WindowIndex(
            *(torch.from_numpy(np.concatenate(parts, axis=-1).astype(np.int32)) for parts in zip(*groups, strict=True))
        )


class Gather(torch.autograd.Function):
    """Gathers rows `[R, d]` by an index. Its gradient needs another index, and the places of the padding."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rows, index, inverse, padding):
        return rows.index_select(0, index)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, index, inverse, padding = inputs
        ctx.save_for_backward(inverse, padding)
        ctx.save_for_forward(index)

    @staticmethod
    def jvp(ctx, rows, *_):
        (index,) = ctx.saved_tensors
        return rows.index_select(0, index)


class ToWindows(Gather):
    """Gathers projected tokens `[(T + 1) * 3 * heads, d]` -> `[3 M, d]`; see [`WindowIndex`]."""

    @staticmethod
    def backward(ctx, grad):
        from_windows, padding = ctx.saved_tensors
        result = grad.index_select(0, from_windows)
        if padding.numel():
            pads = grad.index_select(0, padding.flatten()).view(*padding.shape, -1)
            result = torch.cat([result, pads.sum(dim=1)])
        return result, None, None, None


class ToTokens(Gather):
    """Gathers attention outputs `[M, d]` -> `[T * heads, d]` and drops the padding; see [`WindowIndex`]."""

    @staticmethod
    def backward(ctx, grad):
        from_tokens, output_padding = ctx.saved_tensors
        result = grad.index_select(0, from_tokens)
        if output_padding.numel():
            result = result.index_fill(0, output_padding.long(), 0)
        return result, None, None, None


def is_gathered(rows: torch.Tensor) -> bool:
    """Returns whether one gather moves these rows; a tensor of another class (a fake one) has no values to move.

    Under `torch.jit.trace` sizes are tensors, from which no indices are made.
    """
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return rows.device.type == "cpu" and type(rows) is torch.Tensor and not traced


def to_windows(rows: torch.Tensor, grids: list[Grid], window: int, shift: int, heads: int) -> torch.Tensor:
    """Gathers rows of projected tokens `[(T + 1) * 3 * heads, d]` into windows: `[3 M, d]`; see [`is_gathered`].

    The last token is there only if [`is_padded`]. Each group is q, k and v `[3, n, windows, heads, window**2]`.
    """
    index = index_windows(tuple(grids), window, shift, heads)
    return ToWindows.apply(rows, index.to_windows, index.from_windows, index.padding)


def to_tokens(rows: torch.Tensor, grids: list[Grid], window: int, shift: int, heads: int) -> torch.Tensor:
    """Gathers rows of outputs `[M, d]`, of each group `[n, windows, heads, window**2]`, back: `[T * heads, d]`."""
    index = index_windows(tuple(grids), window, shift, heads)
    return ToTokens.apply(rows, index.to_tokens, index.from_tokens, index.output_padding)


def cut_windows(image: torch.Tensor, window: int, shift: int) -> torch.Tensor:
    """Cuts maps `[n, h, w, C]`, padded with zeros and shifted, into windows `[n * windows, window**2, C]`."""
    n, h, w, width = image.shape
    height, columns = compute_padded_size(h, w, window)
    if (height, columns) != (h, w):
        image = F.pad(image, (0, 0, 0, columns - w, 0, height - h))
    image = image.roll((-shift, -shift), dims=(1, 2)) if shift else image
    image = image.view(n, height // window, window, columns // window, window, width)
    return image.transpose(2, 3).reshape(-1, window**2, width)


def join_windows(windows: torch.Tensor, grid: Grid, window: int, shift: int) -> torch.Tensor:
    """Takes windows `[n * windows, window**2, C]` back to maps `[n, h, w, C]`, without the padding."""
    n, h, w = grid
    height, columns = compute_padded_size(h, w, window)
    image = windows.view(n, height // window, columns // window, window, window, -1)
    image = image.transpose(2, 3).reshape(n, height, columns, -1)
    image = image.roll((shift, shift), dims=(1, 2)) if shift else image
    return image if (height, columns) == (h, w) else image[:, :h, :w]


def split_heads(projected: torch.Tensor, heads: int) -> list[torch.Tensor]:
    """Returns views of q, k and v `[B, L, 3C]` by head, each `[B, heads, L, d]`."""
    return [tensor.transpose(1, 2) for tensor in projected.unflatten(-1, (3, heads, -1)).unbind(2)]


def pad_rows(values: torch.Tensor) -> torch.Tensor:
    """Fills rows `[..., L]` up to a multiple of 16 elements, where fused attention needs rows of a bias to begin."""
    return F.pad(values, (0, -values.shape[-1] % 16))
