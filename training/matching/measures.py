# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""How well do regions of two views find each other? What is counted; the features may be of anything.

Each region of a view is matched with the most similar one, by cosine, of another view, as the region loss matches them
(arXiv 2106.09785, equation 2).

    mirrored_scores   the paper's measure: the ten most similar pairs, of an image and its mirrored self
    position_scores   all regions whose true position in the other view is known
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from modeling_esvit.analysis.token_places import Size
from modeling_esvit.losses import match_regions
from training.features.regions import Grid


TOP = 10  # pairs that the paper's measure counts
ALPHAS = tuple(step / 40 for step in range(1, 21))  # distances, in shares of the longer side of the view
ROWS = 1024  # regions that are compared with all others at a time

MIRRORED_NAMES = ("accuracy", "distance", "next_similarity")
PLACED = ("within_one", "exact", "error", *(f"pck_{alpha:g}" for alpha in ALPHAS))
GUESSES = ("", "chance_", "nearest_", "same_place_")
POSITION_NAMES = ("regions", *(guess + name for guess in GUESSES for name in PLACED))


class Matches(NamedTuple):
    """regions: of the other view, the most similar to each [B, T]; similarity: their cosine [B, T]."""

    regions: Tensor
    similarity: Tensor


def best_matches(features: Tensor, others: Tensor) -> Matches:
    """Of regions [B, T, C] in others [B, T', C]."""
    regions = match_regions(features, others)
    chosen = others.gather(1, regions[..., None].expand(-1, -1, others.shape[2]))
    return Matches(regions, F.cosine_similarity(features, chosen, dim=-1))


def centres(regions: Tensor, grid: Grid, size: Size) -> Tensor:
    """x and y of regions of any shape [...], in pixels of a view of `size`: [..., 2], float64."""
    x = (regions % grid[1] + 0.5) * (size[1] / grid[1])
    y = (regions // grid[1] + 0.5) * (size[0] / grid[0])
    return torch.stack([x, y], dim=-1).double()


def regions_at(positions: Tensor, grid: Grid, size: Size) -> Tensor:
    """The regions [...] that positions [..., 2], x and y within a view of `size`, lie in."""
    x, y = positions.unbind(-1)
    return (y * grid[0] / size[0]).long() * grid[1] + (x * grid[1] / size[1]).long()


def cell_distance(a: Tensor, b: Tensor, columns: int) -> Tensor:
    """How many regions apart two regions are, along the axis on which they are further apart."""
    return torch.maximum((a // columns - b // columns).abs(), (a % columns - b % columns).abs())


def far_apart(regions: Tensor, columns: int, count: int, apart: int) -> Tensor:
    """The first of `regions` [N], and then always the next that is at least `apart` regions from all before: places
    [<= count] in `regions`.
    """
    remaining, chosen = torch.arange(len(regions), device=regions.device), list[Tensor]()
    while len(remaining) and len(chosen) < count:
        chosen.append(remaining[0])
        remaining = remaining[cell_distance(regions[remaining], regions[chosen[-1]], columns) >= apart]
    return torch.stack(chosen) if chosen else remaining


def most_similar(similarity: Tensor, count: int) -> Tensor:
    """The regions [B, count], or all if there are fewer, with the best matches first; of equals the first one."""
    return similarity.argsort(dim=1, descending=True, stable=True)[:, :count]


def mirrored(grid: Grid) -> Tensor:
    """The region [T] of the mirrored view that shows what each one of the view shows."""
    regions = torch.arange(grid[0] * grid[1])
    return regions + (grid[1] - 1 - 2 * (regions % grid[1]))


def mirrored_scores(found: Matches, grid: Grid, size: Size) -> Tensor:
    """The measure of the paper (section 4.3), of each image: [B, 3], float64.

    Of the ten most similar pairs the share that is exactly right and the mean distance from the true position in
    pixels; and the similarity of the eleventh, NaN if there is none. Of fewer than ten regions all count.
    """
    regions, truth = most_similar(found.similarity, TOP + 1), mirrored(grid).to(found.regions.device)
    top = regions[:, :TOP]
    matches, right = found.regions.gather(1, top), truth[top]
    distance = (centres(matches, grid, size) - centres(right, grid, size)).norm(dim=-1)
    following = found.similarity.gather(1, regions)[:, TOP:].double()
    following = F.pad(following, (0, 1 - following.shape[1]), value=torch.nan)
    return torch.stack([(matches == right).double().mean(1), distance.mean(1), following[:, 0]], dim=1)


def mirrored_chance(grid: Grid, size: Size) -> dict[str, float]:
    """What matching at random reaches, on average."""
    regions = torch.arange(grid[0] * grid[1])
    places = centres(regions, grid, size)
    return {"chance_accuracy": 1 / len(regions), "chance_distance": torch.cdist(places, places).mean().item()}


def place_scores(guesses: Tensor, truth: Tensor, grid: Grid, size: Size) -> Tensor:
    """The means over G guesses [K, G] of where K positions [K, 2] are: [K, len(PLACED)]."""
    cells = cell_distance(guesses, regions_at(truth, grid, size)[:, None], grid[1])
    error = (centres(guesses, grid, size) - truth[:, None]).norm(dim=-1)
    limits = torch.tensor(ALPHAS, dtype=error.dtype, device=error.device) * max(size)
    counts = [(cells <= 1).sum(1), (cells == 0).sum(1), error.sum(1), *((error <= limit).sum(1) for limit in limits)]
    return torch.stack([count.double() / guesses.shape[1] for count in counts], dim=1)


def position_scores(matches: Tensor, truth: Tensor, grid: Grid, size: Size) -> Tensor:
    """Sums over the regions of each image that have a true position, beside those of other ways to guess.

    Args:
        matches: regions [B, T] of the other view, which has `size` and `grid`.
        truth: x and y [B, T, 2] in the other view, in pixels; NaN where there is none.

    Returns:
        [B, len(POSITION_NAMES)], float64: the number of regions; how many are matched to at most one region (diagonals
        included) from the true one, how many exactly, the sum of the distances from the true position, how many of
        these are within each of ALPHAS; and the same for guesses at random (expected), for the region that the position
        lies in, which no match can improve on, and for the region's own place.
    """
    known = truth.isfinite().all(dim=-1)
    image, region = known.nonzero(as_tuple=True)
    cells = torch.arange(grid[0] * grid[1], device=matches.device)
    sums = matches.new_zeros(len(matches), len(POSITION_NAMES), dtype=torch.float64)
    for rows in torch.arange(len(image), device=matches.device).split(ROWS):
        where = truth[image[rows], region[rows]].double()
        guesses = [matches[image[rows], region[rows]], regions_at(where, grid, size), region[rows]]
        found, nearest, same = (place_scores(guess[:, None], where, grid, size) for guess in guesses)
        chance = place_scores(cells.expand(len(rows), -1), where, grid, size)
        sums.index_add_(0, image[rows], torch.cat([torch.ones_like(found[:, :1]), found, chance, nearest, same], dim=1))
    return sums


def shares(sums: Tensor) -> dict[str, float]:
    """Sums [B, ...] of `position_scores` -> means over all regions of all images, by name; `regions`: their number.

    NaN where no region has a true position.
    """
    total = sums.sum(0)
    return dict(zip(POSITION_NAMES, [total[0].item(), *(total[1:] / total[0]).tolist()], strict=True))
