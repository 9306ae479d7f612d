# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Paints regions of images by what they have in common: their first three principal components as red, green and blue.

    features, places = regions_of(model, pixel_values)
    palette = fit_palette(features)                                 # of one image, or of several jointly
    picture = paint(palette.colours(features[0]), places)           # an image of the size of the pixel values

Regions with like features have like colours, in all images that share a palette.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from modeling_esvit.analysis.token_places import TokenPlaces
from modeling_esvit.errors import EsViTError


COMPONENTS = 3
TAIL = 0.01  # the share of regions at either end of a component that gets its extreme colour


class PaletteError(EsViTError, ValueError):
    """Raised when features have no principal components."""


@dataclass(frozen=True)
class RegionPalette:
    """Maps features to colours, on the CPU, in float64.

    mean: `[C]`. axes: unit vectors `[3, C]`, of the largest variance first.
    low, high: the ends of each component, `[3]`.
    explained: the share of all variance that is along each axis, `[3]`.
    """

    mean: torch.Tensor
    axes: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    explained: torch.Tensor

    def colours(self, features: torch.Tensor) -> torch.Tensor:
        """Returns red, green and blue in 0..1, `[..., 3]`, of features `[..., C]`; grey if all regions are alike."""
        along = (features.detach().cpu().double() - self.mean) @ self.axes.T
        width = self.high - self.low
        scaled = (along - self.low) / torch.where(width > 0, width, 1)
        return torch.where(width > 0, scaled, 0.5).clamp(0, 1).float()


def fit_palette(features: torch.Tensor) -> RegionPalette:
    """Returns the palette of regions `[..., C]`, by the exact eigenvectors of their covariance. The entry of largest
    magnitude of each is made positive, so that a picture has the same colours in every call.

    Raises:
        PaletteError: fewer than three features, or one that is not finite.
    """
    rows = features.detach().flatten(0, -2).cpu().double()
    if rows.shape[1] < COMPONENTS or not rows.isfinite().all():
        raise PaletteError(f"Colours need {COMPONENTS} or more finite features a region; got {list(features.shape)}.")
    mean = rows.mean(dim=0)
    centred = rows - mean
    variances, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
    axes = vectors.flip(1)[:, :COMPONENTS].T
    axes = axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()
    along = centred @ axes.T
    low, high = torch.quantile(along, torch.tensor([TAIL, 1 - TAIL], dtype=torch.float64), dim=0)
    # Differences that are rounding are none.
    high = torch.where(high - low > 1e-6 * rows.abs().amax(), high, low)
    explained = variances.flip(0)[:COMPONENTS].clamp(min=0) / variances.clamp(min=0).sum().clamp(min=1e-300)
    return RegionPalette(mean, axes, low, high, explained)


def paint(colours: torch.Tensor, places: TokenPlaces, *, smooth: bool = False) -> Image.Image:
    """Returns colours of regions `[T, 3]` as an image of the size that they are regions of.

    Args:
        smooth: interpolated between the regions, not a square each.
    """
    maps = colours.T.unflatten(1, places.grid)
    if smooth:
        image = F.interpolate(maps[None], size=places.size, mode="bicubic")[0].clamp(0, 1)
    else:
        image = places.to_image(maps)
    return Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
