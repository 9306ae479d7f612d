# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the most similar regions of single images, for pictures."""

from typing import NamedTuple

import numpy as np
import torch

from modeling_esvit.embed.engine import LoadedImage
from training.matching.measures import (
    TOP,
    compute_centres,
    count_cells_between,
    find_regions_at,
    mirror_regions,
    rank_by_similarity,
)
from training.matching.over_images import PairImages, RegionMatcher
from training.matching.pairs import MIRRORED, Pair


PICTURED = 3  # images in a figure


class TopMatches(NamedTuple):
    """Holds two views `[h, w, 3]` and the ends of N matches, x and y `[N, 2]` in pixels; `right` marks true ones."""

    views: tuple[np.ndarray, np.ndarray]
    starts: np.ndarray
    ends: np.ndarray
    right: np.ndarray


def find_top_matches(name: str, pair: Pair, matcher: RegionMatcher) -> TopMatches:
    """Finds the ten most similar pairs of regions of one image.

    A match of a `mirrored` pair is right if it is exact; any other if it is at most one region off.
    """
    found, grid = matcher.match([pair], [name]), matcher.grid
    size = (pair.views[0].shape[0], pair.views[0].shape[1])
    truth = pair.locate_regions(grid)
    inside = truth.isfinite().all(dim=1)
    regions = rank_by_similarity(found.similarity.where(inside, -torch.inf), TOP)[0]
    regions = regions[inside[regions]]
    matches = found.regions[0, regions]
    if name == MIRRORED:
        right = matches == mirror_regions(grid)[regions]
    else:
        right = count_cells_between(matches, find_regions_at(truth[regions], grid, size), grid[1]) <= 1
    starts, ends = (compute_centres(each, grid, size).numpy() for each in (regions, matches))
    return TopMatches(pair.views, starts, ends, right.numpy())


def pick_images(images: PairImages, count: int = PICTURED) -> list[LoadedImage]:
    """Picks `count` evenly spaced images: from each starting point, the first one that can be read."""
    starts = np.unique(np.linspace(0, len(images), count, endpoint=False).astype(int)).tolist()
    rows = (images.read(range(start, len(images)), threads=1) for start in starts)
    found = (next((image for image in following if image.pixels is not None), None) for following in rows)
    return [image for image in found if image is not None]
