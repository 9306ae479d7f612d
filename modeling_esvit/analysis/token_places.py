# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Tells where the tokens of a model lie in the image, for images of any size.

features, places = regions_of(model, pixel_values)      # [B, T, C], and where the T regions are
places.token_at(x=120, y=80)                            # the region that a pixel belongs to
places.to_image(similarity)                             # [..., h, w] -> [..., H, W]
"""

import inspect
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from transformers.configuration_utils import PreTrainedConfig

from modeling_esvit.errors import EsViTError
from modeling_esvit.families import FAMILIES
from modeling_esvit.family import DEFAULT_STRIDE, TokenGrid, make_patch_grid


Size = tuple[int, int]  # height and width in pixels, or rows and columns of tokens

MAX_PREFIX = 16  # class and register tokens that a model of another family may have


class TokenPlacesError(EsViTError, ValueError):
    """Raised when it is unknown where the tokens of a model lie, or when there is none at a point."""


@dataclass(frozen=True)
class TokenPlaces:
    """Holds a grid of tokens over an image.

    grid: its rows and columns (h, w).
    rows: for each row of pixels the row of tokens that it belongs to, `[H]`; -1 where an embedding crops the image.
    columns: likewise `[W]`.
    step: pixels from one token to the next, down and across; the last ones may be narrower.
    """

    grid: Size
    rows: torch.Tensor
    columns: torch.Tensor
    step: tuple[int | Fraction, int | Fraction]

    @property
    def size(self) -> Size:
        """Returns height and width of the image."""
        return len(self.rows), len(self.columns)

    @property
    def divides_evenly(self) -> bool:
        """Tells whether all tokens have the same size and together cover the image, none cropped or padded."""
        return all(count * step == pixels for count, step, pixels in zip(self.grid, self.step, self.size, strict=True))

    def token_at(self, x: int, y: int) -> int:
        """Returns the number of the token, row by row, that a pixel belongs to.

        Raises:
            TokenPlacesError: the pixel is outside the image, or belongs to no token.
        """
        height, width = self.size
        if not (0 <= x < width and 0 <= y < height):
            raise TokenPlacesError(f"The point ({x}, {y}) is outside of the image of {width} x {height} pixels.")
        row, column = int(self.rows[y]), int(self.columns[x])
        if min(row, column) < 0:
            raise TokenPlacesError(f"The model crops the image and does not see the point ({x}, {y}).")
        return row * self.grid[1] + column

    def centre(self, token: int) -> tuple[float, float]:
        """Returns x and y of the middle of a token's pixels, in pixels from the upper left corner."""
        row, column = divmod(token, self.grid[1])
        x, y = (
            (axis == index).nonzero().double().mean().item() + 0.5
            for axis, index in ((self.columns, column), (self.rows, row))
        )
        return x, y

    def to_image(self, maps: torch.Tensor) -> torch.Tensor:
        """Spreads maps `[..., h, w]` over the image, `[..., H, W]`: each pixel has the value of its token, or 0."""
        rows, columns = self.rows.to(maps.device), self.columns.to(maps.device)
        image = maps[..., rows.clamp(min=0), :][..., columns.clamp(min=0)]
        seen = (rows >= 0)[:, None] & (columns >= 0)
        return torch.where(seen, image, torch.zeros_like(image))


def place_axis(pixels: int, count: int, stride: int, first: float, seen: int) -> torch.Tensor:
    """Returns for each pixel of an axis the token with the nearest centre, or -1 from pixel `seen` on: `[pixels]`."""
    index = torch.arange(pixels)
    token = ((index + 0.5 - first) / stride + 0.5).floor().long().clamp(0, count - 1)
    return torch.where(index < seen, token, -1)


def stretch_grid(size: Size, grid: Size) -> TokenPlaces:
    """Returns the places of tokens that divide the image evenly."""
    rows, columns = (torch.arange(pixels) * count // pixels for pixels, count in zip(size, grid, strict=True))
    return TokenPlaces(grid, rows, columns, (Fraction(size[0], grid[0]), Fraction(size[1], grid[1])))


def place_tokens(grid: TokenGrid, size: Size) -> TokenPlaces:
    """Returns where the tokens of a grid lie in an image of this size."""
    shape = (grid.rows, grid.columns)
    if grid.stride is None:
        return stretch_grid(size, shape)
    axes = zip(size, shape, grid.seen, strict=True)
    rows, columns = (place_axis(pixels, count, grid.stride, grid.first, seen) for pixels, count, seen in axes)
    return TokenPlaces(shape, rows, columns, (grid.stride, grid.stride))


def stage_places(config: Any, size: Size) -> list[TokenPlaces]:
    """Returns the token places of each stage of an EsViT model, for images of this size.

    For a backbone of transformers, returns those of the last map only.
    """
    return [place_tokens(grid, size) for grid in FAMILIES[config.architecture].token_grids(config, *size)]


def is_esvit(config: PreTrainedConfig) -> bool:
    """Tells an EsViT model by its model type, because remote code has a class of its own."""
    return config.model_type == "esvit"


def region_stride(config: Any) -> int:
    """Returns the pixels from region to region. Sides that are multiples of it leave no region incomplete."""
    if not is_esvit(config):
        return config.patch_size if isinstance(getattr(config, "patch_size", None), int) else DEFAULT_STRIDE
    return FAMILIES[config.architecture].region_stride(config)


def patch_places(config: PreTrainedConfig, size: Size, length: int) -> TokenPlaces | None:
    """Places a sequence of class and register tokens and then a token for each patch of `config.patch_size` pixels."""
    patch = getattr(config, "patch_size", None)
    if not isinstance(patch, int):
        return None
    grid = (size[0] // patch, size[1] // patch)
    return place_tokens(make_patch_grid(*grid, patch), size) if 0 <= length - grid[0] * grid[1] <= MAX_PREFIX else None


def square_places(config: PreTrainedConfig, size: Size, length: int) -> TokenPlaces:
    """Places a sequence of square regions.

    Raises:
        TokenPlacesError: the image has no such grid.
    """
    side = max(round(math.sqrt(size[0] * size[1] / length)), 1)
    grid = (size[0] // side, size[1] // side)
    if grid[0] * grid[1] != length:
        raise TokenPlacesError(
            f"{config.model_type} gives {length} tokens for an image of {size[0]} x {size[1]} pixels, which is no grid "
            "of square regions: choose a size that its stride divides."
        )
    return place_tokens(make_patch_grid(*grid, side), size)


def any_size(model: Any) -> dict[str, bool]:
    """Returns the arguments with which a ViT of transformers takes images of any size, if it needs any."""
    return dict.fromkeys({"interpolate_pos_encoding"} & inspect.signature(model.forward).parameters.keys(), True)


def regions_of(model: Any, pixel_values: torch.Tensor) -> tuple[torch.Tensor, TokenPlaces]:
    """Returns the regions of images `[B, channels, H, W]`, and where they lie: `[B, T, C]`, row by row, without class
    tokens. Takes any model of transformers whose last hidden state is a map or a sequence with a grid of regions.

    Raises:
        TokenPlacesError: the last hidden state is neither, or missing.
        EsViTInputError: an EsViT model does not take such images.
    """
    size = (pixel_values.shape[2], pixel_values.shape[3])
    hidden = getattr(model(pixel_values, **any_size(model)), "last_hidden_state", None)
    if hidden is None:
        raise TokenPlacesError(f"{type(model).__name__} gives no last_hidden_state: choose a model that does.")
    if hidden.ndim == 4:
        return hidden.flatten(2).transpose(1, 2), stretch_grid(size, (hidden.shape[2], hidden.shape[3]))
    if is_esvit(model.config):
        places = stage_places(model.config, size)[-1]
    else:
        sequence = (model.config, size, hidden.shape[1])
        places = patch_places(*sequence) or square_places(*sequence)
    return hidden[:, hidden.shape[1] - places.grid[0] * places.grid[1] :], places
