# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures whether the most similar regions of two views are those at the same place of the image.

These are the targets of the region task as published. The share of right ones shows whether it can teach anything, and
the share of different ones whether all regions choose the same few, which lowers the region loss without learning.
"""

import torch
from torch import Tensor

from modeling_esvit.analysis.token_places import Size
from modeling_esvit.losses import match_by_feature
from modeling_esvit.model_outputs import EsViTForPreTrainingOutput
from training.matching.measures import count_cells_between, mark_chosen


RIGHT, NEAR, KNOWN, DISTINCT, BATCHES = range(5)  # entries of what `count_matches` returns


@torch.no_grad()
def count_matches(
    student: EsViTForPreTrainingOutput,
    teacher: EsViTForPreTrainingOutput,
    layout: list[tuple[int, int]],
    places: Tensor,
    columns: int,
) -> Tensor:
    """Counts, on the device, the regions whose most similar one is at their place, in one batch.

    Args:
        layout: See `make_crop_layout`.
        places: `[B, S, 2]`, see `RegionLocator.locate`.
        columns: Of the regions of a global view.

    Returns:
        float32 `[5]`: the regions whose match is right, and those whose match is at most one region off, of the known
        ones, which have a place in the other view; the share of the regions of a global view that the other global
        crop chooses; and 1, for one batch.
    """
    batch, regions = len(places), layout[0][1]
    matches = match_by_feature(student, teacher, layout, batch)
    known = places >= 0
    for view in (0, 1):  # a view is not compared with itself
        known[:, view * regions : (view + 1) * regions, view] = False
    distance = count_cells_between(matches, places, columns)
    chosen = torch.stack([matches[:, regions : 2 * regions, 0], matches[:, :regions, 1]])  # by the other global crop
    distinct = mark_chosen(chosen, regions).float().mean()
    counts = [(known & (distance == 0)).sum(), (known & (distance <= 1)).sum(), known.sum()]
    return torch.stack([*(count.float() for count in counts), distinct, distinct.new_ones(())])


def average_matches(counts: Tensor, grid: Size) -> dict[str, float | None]:
    """Returns the shares by their names in the log, from the sum of what `count_matches` returned.

    Args:
        grid: Rows and columns of the regions of a global view.
    """
    right, near, known, distinct, batches = counts.tolist()
    chance, near_chance = compute_chance(grid)
    return {
        "region_match_accuracy": right / known if known else None,
        "region_match_within_one": near / known if known else None,
        "region_match_chance": chance,
        "region_match_within_one_chance": near_chance,
        "region_match_distinct": distinct / batches,
    }


def compute_chance(grid: Size) -> tuple[float, float]:
    """Returns how often a random match is right, and how often at most one region off; all places are as frequent."""
    rows, columns = (sum(min(index, 1) + min(count - 1 - index, 1) + 1 for index in range(count)) for count in grid)
    regions = grid[0] * grid[1]
    return 1 / regions, rows * columns / regions**2
