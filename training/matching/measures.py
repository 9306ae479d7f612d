# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores how well the regions of two views find each other, given their features.

Each region of a view is matched with the most similar region, by cosine, of the other view, as in the region loss
(arXiv 2106.09785, equation 2).

    score_mirrored    the paper's measure: the ten most similar pairs between an image and its mirror image
    score_positions   all regions whose true position in the other view is known
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from modeling_esvit.analysis.token_places import Size
from modeling_esvit.losses import match_regions
from training.features.regions import Grid


TOP = 10  # pairs in the paper's measure
ALPHAS = tuple(step / 40 for step in range(1, 21))  # distances, in shares of the longer side of the view
ROWS = 1024  # regions that are compared with all others at once

MIRRORED_NAMES = ("accuracy", "distance", "next_similarity", "distinct")
PLACED = ("within_one", "exact", "error", *(f"pck_{alpha:g}" for alpha in ALPHAS))
GUESSES = ("", "chance_", "nearest_", "same_place_")
POSITION_NAMES = ("regions", *(guess + name for guess in GUESSES for name in PLACED))


class Matches(NamedTuple):
    """Holds the best match of each region.

    regions: the most similar region of the other view, `[B, T]`.
    similarity: its cosine similarity, `[B, T]`.
    """

    regions: Tensor
    similarity: Tensor


def find_best_matches(features: Tensor, others: Tensor) -> Matches:
    """Matches the features of regions `[B, T, C]` with those of the other view `[B, T', C]`."""
    regions = match_regions(features, others)
    chosen = others.gather(1, regions[..., None].expand(-1, -1, others.shape[2]))
    return Matches(regions, F.cosine_similarity(features, chosen, dim=-1))


def compute_centres(regions: Tensor, grid: Grid, size: Size) -> Tensor:
    """Returns x and y of the centres of `regions` `[...]`, in pixels of a view of `size`: `[..., 2]`, float64."""
    x = (regions % grid[1] + 0.5) * (size[1] / grid[1])
    y = (regions // grid[1] + 0.5) * (size[0] / grid[0])
    return torch.stack([x, y], dim=-1).double()


def find_regions_at(positions: Tensor, grid: Grid, size: Size) -> Tensor:
    """Returns the regions `[...]` that contain the positions `[..., 2]`, x and y in pixels of a view of `size`."""
    x, y = positions.unbind(-1)
    return (y * grid[0] / size[0]).long() * grid[1] + (x * grid[1] / size[1]).long()


def count_cells_between(a: Tensor, b: Tensor, columns: int) -> Tensor:
    """Returns how many regions apart `a` and `b` are, along the axis on which they are further apart."""
    return torch.maximum((a // columns - b // columns).abs(), (a % columns - b % columns).abs())


def mark_chosen(matches: Tensor, regions: int) -> Tensor:
    """Returns which of so many regions are the match of any: bool `[..., regions]` for matches `[..., N]`."""
    chosen = torch.zeros(*matches.shape[:-1], regions, dtype=torch.bool, device=matches.device)
    return chosen.scatter_(-1, matches, True)


def select_apart(regions: Tensor, columns: int, count: int, apart: int) -> Tensor:
    """Selects up to `count` of `regions` `[N]` in their order, each at least `apart` regions from all selected before.

    Returns their indices in `regions`.
    """
    remaining, chosen = torch.arange(len(regions), device=regions.device), list[Tensor]()
    while len(remaining) and len(chosen) < count:
        chosen.append(remaining[0])
        remaining = remaining[count_cells_between(regions[remaining], regions[chosen[-1]], columns) >= apart]
    return torch.stack(chosen) if chosen else remaining


def rank_by_similarity(similarity: Tensor, count: int) -> Tensor:
    """Returns the regions with the most similar matches, best first: `[B, count]`, or all if there are fewer.

    Ties keep their order.
    """
    return similarity.argsort(dim=1, descending=True, stable=True)[:, :count]


def mirror_regions(grid: Grid) -> Tensor:
    """Returns, for each region of a view, the region of the mirrored view that shows the same: `[T]`."""
    regions = torch.arange(grid[0] * grid[1])
    return regions + (grid[1] - 1 - 2 * (regions % grid[1]))


def score_mirrored(found: Matches, grid: Grid, size: Size) -> Tensor:
    """Computes the measure of the paper (section 4.3) for each image: `[B, 4]`, float64.

    The columns are the share of the ten most similar pairs that is exactly right, their mean distance from the true
    position in pixels, the similarity of the eleventh pair (NaN if there is none), and the share of the other view's
    regions that are the match of any region. With fewer than ten regions, all of them count.
    """
    regions, truth = rank_by_similarity(found.similarity, TOP + 1), mirror_regions(grid).to(found.regions.device)
    top = regions[:, :TOP]
    matches, right = found.regions.gather(1, top), truth[top]
    distance = (compute_centres(matches, grid, size) - compute_centres(right, grid, size)).norm(dim=-1)
    following = found.similarity.gather(1, regions)[:, TOP:].double()
    following = F.pad(following, (0, 1 - following.shape[1]), value=torch.nan)
    distinct = mark_chosen(found.regions, found.regions.shape[1]).double().mean(1)
    return torch.stack([(matches == right).double().mean(1), distance.mean(1), following[:, 0], distinct], dim=1)


def compute_mirrored_chance(grid: Grid, size: Size) -> dict[str, float]:
    """Returns what random matches reach on average."""
    regions = torch.arange(grid[0] * grid[1])
    places = compute_centres(regions, grid, size)
    return {"chance_accuracy": 1 / len(regions), "chance_distance": torch.cdist(places, places).mean().item()}


def score_guesses(guesses: Tensor, truth: Tensor, grid: Grid, size: Size) -> Tensor:
    """Scores G guesses `[K, G]` of the region of each of K positions `[K, 2]`; returns means `[K, len(PLACED)]`."""
    cells = count_cells_between(guesses, find_regions_at(truth, grid, size)[:, None], grid[1])
    error = (compute_centres(guesses, grid, size) - truth[:, None]).norm(dim=-1)
    limits = torch.tensor(ALPHAS, dtype=error.dtype, device=error.device) * max(size)
    counts = [(cells <= 1).sum(1), (cells == 0).sum(1), error.sum(1), *((error <= limit).sum(1) for limit in limits)]
    return torch.stack([count.double() / guesses.shape[1] for count in counts], dim=1)


def score_positions(matches: Tensor, truth: Tensor, grid: Grid, size: Size) -> Tensor:
    """Sums the scores of the regions that have a true position, image by image, beside the scores of other guesses.

    Args:
        matches: the matched regions `[B, T]` of the other view, which has `size` and `grid`.
        truth: x and y in the other view, `[B, T, 2]`, in pixels; NaN for regions without a true position.

    Returns:
        Sums `[B, len(POSITION_NAMES)]`, float64. First the number of regions. Then, for the matches: how many are at
        most one region (diagonals included) from the true one, how many are exact, the sum of the distances from the
        true position, and how many of these distances are within each of ALPHAS. Then the same three times more: the
        expected values of random guesses, the values of the region that contains the position (the best possible
        match), and the values of the region's own place.
    """
    known = truth.isfinite().all(dim=-1)
    image, region = known.nonzero(as_tuple=True)
    cells = torch.arange(grid[0] * grid[1], device=matches.device)
    sums = matches.new_zeros(len(matches), len(POSITION_NAMES), dtype=torch.float64)
    for rows in torch.arange(len(image), device=matches.device).split(ROWS):
        where = truth[image[rows], region[rows]].double()
        guesses = [matches[image[rows], region[rows]], find_regions_at(where, grid, size), region[rows]]
        found, nearest, same = (score_guesses(guess[:, None], where, grid, size) for guess in guesses)
        chance = score_guesses(cells.expand(len(rows), -1), where, grid, size)
        sums.index_add_(0, image[rows], torch.cat([torch.ones_like(found[:, :1]), found, chance, nearest, same], dim=1))
    return sums


def average_scores(sums: Tensor) -> dict[str, float]:
    """Turns the sums `[B, ...]` of `score_positions` into means over all regions of all images, by name.

    `regions` is the number of regions. Means are NaN if no region has a true position.
    """
    total = sums.sum(0)
    return dict(zip(POSITION_NAMES, [total[0].item(), *(total[1:] / total[0]).tolist()], strict=True))
