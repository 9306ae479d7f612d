# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the most similar regions of single images, for pictures."""

from typing import NamedTuple

import numpy as np
import torch

from modeling_esvit.embed.engine import LoadedImage
from training.features.frozen_models import FrozenModel
from training.matching.measures import TOP, cell_distance, centres, mirrored, most_similar, regions_at
from training.matching.over_images import PairImages, match_pairs
from training.matching.pairs import MIRRORED, Pair


PICTURED = 3  # images in a picture


class TopMatches(NamedTuple):
    """Holds two views `[h, w, 3]`, and the ends of matches `[N, 2]` as x and y in pixels; `right` `[N]` marks true ones."""

    views: tuple[np.ndarray, np.ndarray]
    starts: np.ndarray
    ends: np.ndarray
    right: np.ndarray


def find_top_matches(name: str, pair: Pair, model: FrozenModel) -> TopMatches:
    """The ten most similar pairs of regions of one image; of `mirrored` those that are exactly right are right."""
    found, grid = match_pairs(model, [pair], [name])
    size = (pair.views[0].shape[0], pair.views[0].shape[1])
    truth = pair.truth(grid)
    inside = truth.isfinite().all(dim=1)
    regions = most_similar(found.similarity.where(inside, -torch.inf), TOP)[0]
    regions = regions[inside[regions]]
    matches = found.regions[0, regions]
    if name == MIRRORED:
        right = matches == mirrored(grid)[regions]
    else:
        right = cell_distance(matches, regions_at(truth[regions], grid, size), grid[1]) <= 1
    starts, ends = (centres(each, grid, size).numpy() for each in (regions, matches))
    return TopMatches(pair.views, starts, ends, right.numpy())


def pick_images(images: PairImages, count: int = PICTURED) -> list[LoadedImage]:
    """So many images, or all, evenly spread: from each start the first one that can be read."""
    starts = np.unique(np.linspace(0, len(images), count, endpoint=False).astype(int)).tolist()
    rows = (images.read(range(start, len(images)), threads=1) for start in starts)
    found = (next((image for image in following if image.pixels is not None), None) for following in rows)
    return [image for image in found if image is not None]
