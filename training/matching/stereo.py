# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Do the regions of a model find each other in two photographs of one scene?

The stereo pair of a motorcycle that ships with scikit-image (Middlebury 2014) comes with its true disparity: where in
the right view a place of the left one is. The paper measures correspondence between an image and its mirrored,
recoloured self; here the second view is a second photograph.

Left out are regions whose centre has no measured disparity, whose true position is outside the right view, or which
something nearer hides there.
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
from training.features.regions import Grid, even_grid, region_features
from training.matching.measures import (
    best_matches,
    cell_distance,
    centres,
    far_apart,
    position_scores,
    regions_at,
    shares,
)


SIZE = (1024, 1536)  # about twice the photographs' own 500 x 741, and whole regions of 16, 32 or 64 pixels


def stereo_pair() -> tuple[Image.Image, Image.Image, np.ndarray]:
    """Left view, right view, and the left view's disparity in pixels [H, W], not finite where it was not measured.

    Raises:
        FrozenModelError: scikit-image is not installed.
    """
    try:
        import skimage.data
    except ImportError as error:
        raise FrozenModelError("the stereo pair comes with scikit-image: pip install scikit-image") from error
    left, right, disparity = skimage.data.stereo_motorcycle()
    return Image.fromarray(left), Image.fromarray(right), disparity


def visible_in_right(disparity: np.ndarray) -> np.ndarray:
    """Which pixels of the left view [H, W] the right view also shows.

    A left pixel x lies at x - disparity in the right view. (Measured, because scikit-image describes it the other way
    round: the pixels paired so differ by 8 levels on average, and by 48 with the other sign.) Among pixels that fall on
    one place the nearest, with the largest disparity, hides those more than one pixel of disparity behind it.
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


def true_positions(disparity: np.ndarray, grid: Grid, size: Size) -> Tensor:
    """Where the centre of each left region, row by row, lies in the right view, if both views have `size`.

    x and y [T, 2] in pixels; NaN for those that are left out.
    """
    height, width = disparity.shape
    x, y = centres(torch.arange(grid[0] * grid[1]), grid, (height, width)).numpy().T
    centre = (y.astype(int), x.astype(int))
    known = visible_in_right(disparity)[centre]
    x = np.where(known, x - disparity[centre], np.nan)
    x[~((x >= 0) & (x < width))] = np.nan
    y = np.where(np.isnan(x), np.nan, y)
    return torch.from_numpy(np.stack([x * size[1] / width, y * size[0] / height], axis=1))


def whole_size(side: int) -> Size:
    """About SIZE, in whole regions of `side` pixels; of smaller regions than 16 pixels as many as of those."""
    rows = round(SIZE[0] / max(side, 16))
    return rows * side, rows * 3 // 2 * side


@dataclass(frozen=True)
class StereoMatches:
    """Matches of the left view's regions in the right view.

    size, grid: of each view.
    matches: region numbers [T] of the right view, row by row.
    truth: positions [T, 2] in the right view, in pixels; NaN for regions that are left out.
    similarity: cosine [T] of each left region and its match.
    """

    size: Size
    grid: Grid
    matches: Tensor
    truth: Tensor
    similarity: Tensor

    def scores(self) -> dict[str, float]:
        """See `matching.shares`."""
        return shares(position_scores(self.matches[None], self.truth[None], self.grid, self.size))

    def most_similar(self, count: int, apart: int = 4) -> Tensor:
        """Up to `count` left regions with a truth, the most similar matches first, at least `apart` regions apart."""
        regions = self.truth[:, 0].isfinite().nonzero()[:, 0]
        regions = regions[self.similarity[regions].argsort(descending=True, stable=True)]
        return regions[far_apart(regions, self.grid[1], count, apart)]

    def right(self, regions: Tensor) -> Tensor:
        """Whether each of these left regions is matched at most one region off."""
        truth = regions_at(self.truth[regions], self.grid, self.size)
        return cell_distance(self.matches[regions], truth, self.grid[1]) <= 1


def match_stereo(
    model: Any,
    *,
    size: Size = SIZE,
    image_mean: Any = IMAGENET_DEFAULT_MEAN,
    image_std: Any = IMAGENET_DEFAULT_STD,
) -> StereoMatches:
    """Matches the regions of the left view, resized to `size` (height, width), with those of the right view.

    Runs the model in the mode and on the device it is in.

    Raises:
        FrozenModelError: scikit-image is missing.
        TokenPlacesError: the model's regions do not divide `size` evenly.
    """
    left, right, disparity = stereo_pair()
    views = [pixel_values(image, size, image_mean, image_std) for image in (left, right)]
    (features, places), (others, _) = (region_features(model, view[None]) for view in views)
    grid = even_grid(places)
    found = best_matches(features.cpu(), others.cpu())
    truth = true_positions(disparity, grid, size)
    return StereoMatches(size, grid, found.regions[0], truth, found.similarity[0])


def pixel_values(image: Image.Image, size: Size, mean: Any, std: Any) -> Tensor:
    """An RGB image, resized to `size` (height, width) and normalised: [3, height, width]."""
    resized = np.array(image.resize(size[::-1], Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(resized).permute(2, 0, 1) / 255
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
