# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Matches the regions of two photographs of one scene, and scores the matches by the true disparity.

The photographs are the stereo pair of a motorcycle that ships with scikit-image (Middlebury 2014). Its measured
disparity tells where each point of the left view lies in the right view. The paper matches an image with its own mirror
image in changed colours; here, the second view is a second photograph.

A region is left out if the disparity at its centre was not measured, if its true position lies outside the right view,
or if a nearer object hides it there.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from modeling_esvit.analysis.token_places import Size
from training.features.frozen_models import FrozenModelError
from training.features.regions import Grid, compute_region_features, find_even_grid
from training.matching.measures import (
    average_scores,
    compute_centres,
    count_cells_between,
    find_best_matches,
    find_regions_at,
    score_positions,
    select_apart,
)


SIZE = (1024, 1536)  # about twice the photographs' own 500 x 741, and whole regions of 16, 32 or 64 pixels


def load_stereo_pair() -> tuple[Image.Image, Image.Image, np.ndarray]:
    """Returns left view, right view, and the left view's disparity `[H, W]` in pixels, not finite where not measured.

    Raises:
        FrozenModelError: scikit-image is not installed.
    """
    try:
        import skimage.data
    except ImportError as error:
        raise FrozenModelError("the stereo pair comes with scikit-image: pip install scikit-image") from error
    left, right, disparity = skimage.data.stereo_motorcycle()
    return Image.fromarray(left), Image.fromarray(right), disparity


def find_visible(disparity: np.ndarray) -> np.ndarray:
    """Marks the pixels of the left view `[H, W]` that the right view shows, too.

    The left pixel x lies at x - disparity in the right view. (scikit-image documents the opposite sign, but pixels
    paired this way differ by 8 levels on average, and by 48 with the other sign.) Of several pixels that fall on one
    place, the nearest has the largest disparity and hides those that are more than one pixel of disparity behind it.
    """
    height, width = disparity.shape
    rows, columns = np.mgrid[:height, :width]
    target = np.rint(columns - np.where(np.isfinite(disparity), disparity, np.inf))
    visible = (target >= 0) & (target < width)
    place = (rows[visible], target[visible].astype(int))
    nearest = np.full((height, width), -np.inf)
    np.maximum.at(nearest, place, disparity[visible])
    visible[visible] = disparity[visible] >= nearest[place] - 1
    return visible


def compute_true_positions(disparity: np.ndarray, grid: Grid, size: Size) -> Tensor:
    """Locates the centre of each left region, row by row, in the right view, for views of `size`.

    Returns x and y `[T, 2]` in pixels; NaN for regions that are left out.
    """
    height, width = disparity.shape
    x, y = compute_centres(torch.arange(grid[0] * grid[1]), grid, (height, width)).numpy().T
    centre = (y.astype(int), x.astype(int))
    known = find_visible(disparity)[centre]
    x = np.where(known, x - disparity[centre], np.nan)
    x[~((x >= 0) & (x < width))] = np.nan
    y = np.where(np.isnan(x), np.nan, y)
    return torch.from_numpy(np.stack([x * size[1] / width, y * size[0] / height], axis=1))


def choose_size(side: int) -> Size:
    """Returns a size of about SIZE in whole regions of `side` pixels.

    If regions are smaller than 16 pixels, the views become smaller, so that they have as many regions as with 16.
    """
    rows = round(SIZE[0] / max(side, 16))
    return rows * side, rows * 3 // 2 * side


@dataclass(frozen=True)
class StereoMatches:
    """Holds the matches of the left view's regions in the right view.

    size, grid: pixels and regions of each view, as (height, width) and (rows, columns).
    matches: region numbers `[T]` of the right view, for each left region, row by row.
    truth: true positions `[T, 2]` in the right view, in pixels; NaN for regions that are left out.
    similarity: cosine similarity `[T]` of each left region and its match.
    """

    size: Size
    grid: Grid
    matches: Tensor
    truth: Tensor
    similarity: Tensor

    def score(self) -> dict[str, float]:
        """Returns the scores of `average_scores`."""
        return average_scores(score_positions(self.matches[None], self.truth[None], self.grid, self.size))

    def select_regions(self, count: int, apart: int = 4) -> Tensor:
        """Selects up to `count` left regions with a true position, by similarity, at least `apart` regions apart."""
        regions = self.truth[:, 0].isfinite().nonzero()[:, 0]
        regions = regions[self.similarity[regions].argsort(descending=True, stable=True)]
        return regions[select_apart(regions, self.grid[1], count, apart)]

    def are_right(self, regions: Tensor) -> Tensor:
        """Returns, for each of these left regions, whether its match is at most one region off."""
        truth = find_regions_at(self.truth[regions], self.grid, self.size)
        return count_cells_between(self.matches[regions], truth, self.grid[1]) <= 1


def match_stereo(
    model: Any,
    *,
    size: Size = SIZE,
    image_mean: Any = IMAGENET_DEFAULT_MEAN,
    image_std: Any = IMAGENET_DEFAULT_STD,
    option: str = "--stereo_size",
) -> StereoMatches:
    """Matches the regions of the left view, resized to `size` (height, width), with those of the right view.

    Runs the model in the mode and on the device it is in. `option` is the one that an error names for the size.

    Raises:
        FrozenModelError: scikit-image is missing.
        TokenPlacesError: the model's regions do not divide `size` evenly.
    """
    left, right, disparity = load_stereo_pair()
    views = [make_pixel_values(image, size, image_mean, image_std) for image in (left, right)]
    (features, places), (others, _) = (compute_region_features(model, view[None]) for view in views)
    grid = find_even_grid(places, f"{option} {{0}} {{1}}")
    found = find_best_matches(features.cpu(), others.cpu())
    truth = compute_true_positions(disparity, grid, size)
    return StereoMatches(size, grid, found.regions[0], truth, found.similarity[0])


def make_pixel_values(image: Image.Image, size: Size, mean: Any, std: Any) -> Tensor:
    """Resizes an RGB image to `size` (height, width) and normalises it; returns `[3, height, width]`."""
    resized = np.array(image.resize(size[::-1], Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(resized).permute(2, 0, 1) / 255
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
