# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows what a model attends to, in image coordinates.

    blocks = block_attentions(model, pixel_values)          # of each block
    blocks[-1].query_map(x=120, y=80).image                 # [B, heads, H, W]: what this point looks at
    blocks[-1].global_map().image                           # the same of the class token (ViT, ViL)
    blocks[-1].received()                                   # [B, heads, h, w]: who is looked at
    blocks[-1].entropy()                                    # [B, heads], in bits

Attention comes from a model as it computes it: in windows of a map that may be padded and rolled (Swin, CvT), in
chunks with their neighbours (ViL), or of all tokens (ViT). Here each weight goes back to where its query and its key
are in the image. Nothing is resampled before that, so that maps are exact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modeling_esvit.analysis.token_places import Size, TokenPlaces, any_size, is_esvit, patch_places, place_tokens
from modeling_esvit.errors import EsViTError
from modeling_esvit.families import FAMILIES
from modeling_esvit.family import AttentionLayout
from modeling_esvit.vil_attention import to_chunks, with_margin
from modeling_esvit.windows import compute_padded_size, find_window_positions


PADDING = -1


class AttentionLayoutError(EsViTError, ValueError):
    """Raised when a model returns no attention weights, or weights that are not finite or have no known place."""


@dataclass(frozen=True)
class AttentionPart:
    """Holds attention weights and the tokens that they belong to.

    Tokens are numbered row by row; global and class tokens follow. PADDING marks places that fill up a window.

    weights: `[B, windows, heads, Q, K]`, after the softmax.
    queries: `[windows, Q]`. keys: `[windows, K]`.
    """

    weights: torch.Tensor
    queries: torch.Tensor
    keys: torch.Tensor


@dataclass(frozen=True)
class QueryMap:
    """Holds how a query distributes its attention. All three together sum to 1 for each head.

    tokens: to the tokens of the image, `[B, heads, h, w]`; 0 outside of the query's window.
    to_global: to class and global tokens, `[B, heads, g]`.
    to_padding: to the zeros that its window was padded with, which take part unmasked in Swin and CvT, `[B, heads]`.
    """

    tokens: torch.Tensor
    to_global: torch.Tensor
    to_padding: torch.Tensor
    places: TokenPlaces

    @property
    def image(self) -> torch.Tensor:
        """Returns `[B, heads, H, W]`: at each pixel the weight of its token."""
        return self.places.to_image(self.tokens)


@dataclass(frozen=True)
class BlockAttention:
    """Holds the attention of one block for a batch of images of one size.

    places: where its tokens lie. num_global: class or global tokens beside them.
    parts: together they hold each query once.
    """

    places: TokenPlaces
    num_global: int
    parts: Sequence[AttentionPart]

    @property
    def num_tokens(self) -> int:
        return self.places.grid[0] * self.places.grid[1]

    def query_map(self, x: int, y: int) -> QueryMap:
        """Returns the map of the token at a pixel.

        Raises:
            TokenPlacesError: there is none.
        """
        return self.token_map(self.places.token_at(x, y))

    def global_map(self, index: int = 0) -> QueryMap:
        """Returns the map of a class or global token.

        Raises:
            AttentionLayoutError: the block has none of this number.
        """
        if not 0 <= index < self.num_global:
            raise AttentionLayoutError(
                f"This block has {self.num_global} class or global tokens, so it has no token {index}."
            )
        return self.token_map(self.num_tokens + index)

    def token_map(self, token: int) -> QueryMap:
        """Returns the map of a token by its number."""
        for part in self.parts:
            for window, query in (part.queries == token).nonzero().tolist():
                return self.to_map(self.spread(part.weights[:, window, :, query], part.keys[window]))
        raise AttentionLayoutError(f"There is no token {token}; the block has {self.num_tokens + self.num_global}.")

    def received(self) -> torch.Tensor:
        """Returns the mean map of all tokens of the image, `[B, heads, h, w]`. A class token is not one of them."""
        total: Any = 0
        for part in self.parts:
            is_local = (part.queries >= 0) & (part.queries < self.num_tokens)
            paid = torch.einsum("bwhqk,wq->bhwk", part.weights, is_local.to(part.weights.dtype))
            total = total + self.spread(paid.flatten(2), part.keys.flatten())
        return self.to_map(total / self.num_tokens).tokens

    def entropy(self) -> torch.Tensor:
        """Returns the entropy of each head in bits, `-sum a log2 a` over all keys of a query, padding included,
        averaged over all queries but padding: `[B, heads]`.
        """
        total: Any = 0
        for part in self.parts:
            bits = torch.special.entr(part.weights).sum(dim=-1) / math.log(2)
            total = total + torch.einsum("bwhq,wq->bh", bits, (part.queries >= 0).to(bits.dtype))
        return total / (self.num_tokens + self.num_global)

    def spread(self, weights: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Spreads weights `[..., K]` of keys `[K]` to `[..., T + g + 1]`: a place a token, the last for padding."""
        count = self.num_tokens + self.num_global
        index = torch.where(keys == PADDING, count, keys)
        return weights.new_zeros(*weights.shape[:-1], count + 1).index_add(-1, index, weights)

    def to_map(self, spread: torch.Tensor) -> QueryMap:
        tokens, to_global, to_padding = spread.split([self.num_tokens, self.num_global, 1], dim=-1)
        return QueryMap(tokens.unflatten(-1, self.places.grid), to_global, to_padding[..., 0], self.places)


def mass_mask(maps: torch.Tensor, share: float = 0.6) -> torch.Tensor:
    """Returns for maps `[..., h, w]` the smallest sets of places that hold at least `share` of the mass of each, as the
    original's pictures mark them (60 %).
    """
    values, order = maps.flatten(-2).sort(dim=-1, descending=True, stable=True)
    before = values.cumsum(dim=-1) - values
    kept = (before < share * values.sum(dim=-1, keepdim=True)) & (values > 0)
    return torch.zeros_like(kept).scatter(-1, order, kept).view(maps.shape)


@torch.no_grad()
def block_attentions(model: Any, pixel_values: torch.Tensor) -> list[BlockAttention]:
    """Returns the attention of each block, from first to last, for images `[B, channels, H, W]`. The model runs in the
    mode and on the device that it is in; use `eval()` for what a finished model does.

    Args:
        model: any EsViT model, or one of transformers whose blocks attend to all tokens, such as ViT and DINOv2 (with
            `attn_implementation="eager"`, without which it has no weights to return).

    Raises:
        AttentionLayoutError: the model returns no weights, or NaN, or it is not known where their tokens lie.
        EsViTInputError, EsViTBackboneError: an EsViT model does not take such images.
    """
    size = (pixel_values.shape[2], pixel_values.shape[3])
    weights = getattr(model(pixel_values, output_attentions=True, **any_size(model)), "attentions", None)
    if not weights:
        raise AttentionLayoutError(
            f"{type(model).__name__} returns no attention weights. If it has attention, load it with "
            'attn_implementation="eager".'
        )
    blocks = place_weights(model, size, weights)
    for number, block in enumerate(blocks, start=1):
        if not all(part.weights.isfinite().all() for part in block.parts):
            raise AttentionLayoutError(
                f"The attention of block {number} is not finite: the model's weights are broken, or overflow in "
                f"{pixel_values.dtype}."
            )
    return blocks


def place_windows(weights: torch.Tensor, places: TokenPlaces, window: int, shift: int) -> BlockAttention:
    """Places the weights of windows of a padded and rolled map, `[B * windows, heads, window**2, window**2]`."""
    rows, columns = places.grid
    height, width = compute_padded_size(rows, columns, window)
    positions = torch.from_numpy(find_window_positions(height, width, window, shift))[:rows, :columns]
    numbers = torch.full((height * width,), PADDING)
    numbers[positions.flatten()] = torch.arange(rows * columns)
    numbers = numbers.view(-1, window**2).to(weights.device)
    return BlockAttention(places, 0, [AttentionPart(split_windows(weights, len(numbers)), numbers, numbers)])


def split_windows(weights: torch.Tensor, windows: int) -> torch.Tensor:
    return weights.float().unflatten(0, (-1, windows))


def place_dense(weights: torch.Tensor, places: TokenPlaces, num_global: int) -> BlockAttention:
    """Places the weights of all tokens, the class or global ones first: `[B, heads, g + T, g + T]`."""
    numbers = sequence_numbers(places, num_global, weights.device)[None]
    return BlockAttention(places, num_global, [AttentionPart(split_windows(weights, 1), numbers, numbers)])


def sequence_numbers(places: TokenPlaces, num_global: int, device: torch.device) -> torch.Tensor:
    """Returns the numbers of global tokens and then those of the image: `[g + T]`."""
    count = places.grid[0] * places.grid[1]
    return (torch.arange(num_global + count, device=device) - num_global) % (num_global + count)


def place_sparse(attention: Any, weights: Any, places: TokenPlaces) -> BlockAttention:
    """Places the weights of ViL's chunks, see `EsViTViLSparseAttention`.

    Raises:
        AttentionLayoutError: which neighbours were seen was drawn and is not known any more.
    """
    if attention.training and attention.mode > 0:
        raise AttentionLayoutError(
            f"In training with vil_mode {attention.mode}, chunks that are seen are drawn and not recorded; use eval()."
        )
    local, of_global = weights
    num_global, (rows, columns) = attention.num_global, places.grid
    # One more than the number of each token, so that the zeros of padding and margin stand for none.
    numbers = torch.arange(1, rows * columns + 1, device=local.device).view(1, rows, columns, 1)
    chunks = to_chunks(numbers, attention.window)
    around = attention.gather(with_margin(chunks)[None], attention.places(local.device))
    queries, keys = (each.reshape(chunks.shape[1] * chunks.shape[2], -1) - 1 for each in (chunks, around))
    globals_ = torch.arange(num_global, device=local.device) + rows * columns
    keys = torch.cat([globals_.expand(len(keys), -1), keys], dim=1)
    parts = [AttentionPart(split_windows(local, len(keys)), queries, keys)]
    if of_global is not None:
        everything = sequence_numbers(places, num_global, local.device)[None]
        parts.append(AttentionPart(split_windows(of_global, 1), globals_[None], everything))
    return BlockAttention(places, num_global, parts)


def place_weights(model: Any, size: Size, weights: Sequence[Any]) -> list[BlockAttention]:
    """Returns the attention of each block, from what the model returned for images of this size."""
    config = model.config
    if not is_esvit(config):
        return [sequence_block(config, size, each) for each in weights]
    family = FAMILIES[config.architecture]
    if family.attention_layouts is None:
        return [sequence_block(config.backbone_config or config, size, each) for each in weights]
    encoder = getattr(model, model.base_model_prefix, model).encoder
    grids = family.token_grids(config, *size)
    places = [place_tokens(grid, size) for grid in grids]
    layouts = family.attention_layouts(encoder, config, grids)
    return [place_block(*block, places) for block in zip(weights, layouts, strict=True)]


def place_block(weights: Any, layout: AttentionLayout, stages: Sequence[TokenPlaces]) -> BlockAttention:
    """Returns the attention of a block, given where the tokens of each stage lie."""
    places = stages[layout.stage]
    if layout.chunks is not None:
        return place_sparse(layout.chunks, weights, places)
    if layout.window:
        return place_windows(weights, places, layout.window, layout.shift)
    return place_dense(weights, places, layout.num_global)


def sequence_block(config: Any, size: Size, weights: torch.Tensor) -> BlockAttention:
    """Places the weights of a block of another model of transformers.

    Raises:
        AttentionLayoutError: its blocks do not attend to all patches of the image, and to these alone.
    """
    is_square = weights.ndim == 4 and weights.shape[-2] == weights.shape[-1]
    places = patch_places(config, size, weights.shape[-1]) if is_square else None
    if places is None:
        raise AttentionLayoutError(
            f"{config.model_type} gives attention weights of shape {list(weights.shape)} for images of {size[0]} x "
            f"{size[1]} pixels; of other models, only the weights of all patches of a ViT can be put in place."
        )
    return place_dense(weights, places, weights.shape[-1] - places.grid[0] * places.grid[1])
