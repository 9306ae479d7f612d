# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds which regions of two views of an image show the same place, from the boxes and flips of their crops.

The centre of a region goes through its crop's box and flip into the image, and from there into the other view, whose
region there is the match by location (as in PixPro, arXiv 2011.10043, and VICRegL, arXiv 2210.01571).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modeling_esvit.analysis.token_places import Size, TokenPlaces, stage_places
from training.views.draw import CropParameters, ViewOptions
from training.views.rand_augment import find_matrix


OUTSIDE = -1  # in place of a region, where the other view does not show the place


def map_to_image(crop: CropParameters) -> np.ndarray:
    """Returns the matrix `[3, 3]`, float64, that maps a point (x, y, 1) of a view to the image, both in pixels.

    Geometric operations of RandAugment are among it.
    """
    (height, width), box = crop.size, crop.box
    x, y = box.width / width, box.height / height
    if crop.flip:
        matrix = np.array([[-x, 0, box.left + box.width], [0, y, box.top], [0, 0, 1]])
    else:
        matrix = np.array([[x, 0, box.left], [0, y, box.top], [0, 0, 1]])
    for operation, argument in crop.operations:  # each maps its result to what the ones before it made
        matrix = matrix @ find_matrix(operation, argument, crop.size)
    return matrix


def find_shown(points: np.ndarray, crop: CropParameters) -> np.ndarray:
    """Returns at which points (x, y, 1) of a view `[..., 3]` it shows the image.

    Elsewhere is the colour that a geometric operation filled in. All points are taken to be inside of the view.
    """
    shown, size = np.ones(points.shape[:-1], dtype=bool), np.array(crop.size[::-1])
    for operation, argument in reversed(crop.operations):
        points = points @ find_matrix(operation, argument, crop.size).T
        shown &= np.all((points[..., :2] >= 0) & (points[..., :2] < size), axis=-1)
    return shown


def find_centres(places: TokenPlaces) -> np.ndarray:
    """Returns the centres (x, y, 1) of all regions of a view in its pixels, row by row: `[T, 3]`, float64."""
    return np.array([(*places.centre(token), 1.0) for token in range(places.grid[0] * places.grid[1])])


class RegionLocator:
    """Locates the regions of all crops of images in their two global views.

    Attributes:
        centres: Of the regions of each crop, `[T, 3]`.
        rows, columns, width: For each row and column of a global view's pixels that of its regions, and their columns.
    """

    def __init__(self, groups: Sequence[tuple[int, TokenPlaces]]) -> None:
        """Takes, for each group of crops, their number, and the places of the regions in one of them."""
        self.centres = [centres for crops, places in groups for centres in [find_centres(places)] * crops]
        seen = groups[0][1]
        self.rows, self.columns, self.width = seen.rows.numpy(), seen.columns.numpy(), seen.grid[1]

    def locate(self, drawn: Sequence[Sequence[CropParameters]]) -> Tensor:
        """Returns, for each region of each image's crops, the regions of the two global views at its place.

        Args:
            drawn: For each image the parameters of its crops, in their order; the first two are the global ones.

        Returns:
            int64 `[B, S, 2]`, OUTSIDE where a view does not show the place. The S regions of an image are ordered as
            in the losses: crop by crop, row by row.
        """
        to_image = np.array([[map_to_image(crop) for crop in crops] for crops in drawn])  # [B, crops, 3, 3]
        to_global = np.linalg.inv(to_image[:, :2])  # [B, 2, 3, 3]
        moved = [(image, crops) for image, crops in enumerate(drawn) if any(crop.operations for crop in crops)]
        found = []
        for number, centres in enumerate(self.centres):
            points = (to_global @ to_image[:, number, None] @ centres.T).swapaxes(2, 3)  # [B, 2, T, 3]
            regions = self.find_regions(points[..., 0], points[..., 1])
            for image, crops in moved:
                shown = find_shown(centres, crops[number])
                for view in (0, 1):
                    seen = shown & find_shown(points[image, view], crops[view])
                    regions[image, view] = np.where(seen, regions[image, view], OUTSIDE)
            found.append(regions)
        return torch.from_numpy(np.concatenate(found, axis=2)).transpose(1, 2)

    def find_regions(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns the regions of global views at points in their pixels, OUTSIDE where there is none."""
        height, width = len(self.rows), len(self.columns)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        row = self.rows[np.where(inside, y, 0).astype(np.int64)]
        column = self.columns[np.where(inside, x, 0).astype(np.int64)]
        return np.where(inside & (row >= 0) & (column >= 0), row * self.width + column, OUTSIDE)


def make_locator(config: Any, options: ViewOptions) -> RegionLocator:
    """Makes the locator of the views of a model with this configuration."""
    sizes: list[Size] = [group[0].size for group in options.groups]
    places = [stage_places(config, size)[-1] for size in sizes]
    return RegionLocator([(len(group), each) for group, each in zip(options.groups, places, strict=True)])
