# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the counts of right, near and different matches against a loop over images, crops and regions."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from training.monitoring.region_matches import average_matches, compute_chance, count_matches


GRID, BATCH, CHANNELS = (2, 3), 3, 5
LAYOUT = [(2, 6), (3, 4)]


def make_outputs(seed: int = 0) -> tuple[SimpleNamespace, SimpleNamespace]:
    """Returns outputs with regions in the order of the model: group by group, crop by crop, image by image."""
    generator = torch.Generator().manual_seed(seed)
    rows = [sum(crops * BATCH * count for crops, count in layout) for layout in (LAYOUT, LAYOUT[:1])]
    return tuple(SimpleNamespace(region_features=torch.randn(n, CHANNELS, generator=generator)) for n in rows)


def count_by_loop(student, teacher, places) -> list[float]:
    crops = [count for number, count in LAYOUT for _ in range(number)]
    regions = GRID[0] * GRID[1]
    features = student.region_features.split([BATCH * count for count in crops])
    views = teacher.region_features.split(BATCH * regions)
    right = near = known = 0
    chosen: dict[tuple[int, int], set[int]] = {}
    for image, view in itertools.product(range(BATCH), (0, 1)):
        theirs = views[view][image * regions : (image + 1) * regions]
        row = 0
        for crop, count in enumerate(crops):
            for region in range(count):
                ours = features[crop][image * count + region]
                match = int(F.cosine_similarity(ours[None], theirs).argmax())
                place = int(places[image, row, view])
                row += 1
                if crop == 1 - view:
                    chosen.setdefault((image, view), set()).add(match)
                if crop == view or place < 0:
                    continue
                known += 1
                right += match == place
                apart = max(abs(a - b) for a, b in zip(divmod(match, GRID[1]), divmod(place, GRID[1]), strict=True))
                near += apart <= 1
    return [right, near, known, sum(map(len, chosen.values())) / (len(chosen) * regions), 1]


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_a_loop(seed):
    student, teacher = make_outputs(seed)
    places = torch.randint(-2, 6, (BATCH, 2 * 6 + 3 * 4, 2), generator=torch.Generator().manual_seed(seed)).clamp(
        min=-1
    )
    expected = count_by_loop(student, teacher, places)
    assert expected[0] > 0 and expected[1] < expected[2]
    torch.testing.assert_close(count_matches(student, teacher, LAYOUT, places, GRID[1]), torch.tensor(expected))


def test_the_same_features_find_each_other():
    student, teacher = make_outputs()
    generator = torch.Generator().manual_seed(0)
    view = torch.randn(BATCH, 6, CHANNELS, generator=generator).flatten(0, 1)
    student.region_features[: 2 * BATCH * 6] = torch.cat([view, view])
    teacher.region_features[:] = torch.cat([view, view])
    places = torch.full((BATCH, 24, 2), -1)
    places[:, :12] = torch.arange(6).repeat(2)[:, None]
    counts = count_matches(student, teacher, LAYOUT, places, GRID[1])
    assert counts.tolist() == [36, 36, 36, 1, 1]
    assert average_matches(counts + counts, GRID)["region_match_distinct"] == 1


def test_hubs_are_few_different_regions():
    student, teacher = make_outputs()
    student.region_features[:] = student.region_features[0]
    assert count_matches(student, teacher, LAYOUT, torch.full((BATCH, 24, 2), -1), 3)[3] == pytest.approx(1 / 6)


def test_shares_beside_chance():
    found = average_matches(torch.tensor([10.0, 20.0, 40.0, 1.5, 2.0]), (7, 7))
    assert found["region_match_accuracy"] == 0.25 and found["region_match_within_one"] == 0.5
    assert found["region_match_distinct"] == 0.75 and found["region_match_chance"] == pytest.approx(1 / 49)
    assert average_matches(torch.zeros(5) + torch.tensor([0, 0, 0, 1, 1]), (7, 7))["region_match_accuracy"] is None


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (7, 7)])
def test_chance_is_that_of_all_pairs(grid):
    cells = list(itertools.product(range(grid[0]), range(grid[1])))
    near = [max(abs(a - c), abs(b - d)) <= 1 for (a, b), (c, d) in itertools.product(cells, cells)]
    assert compute_chance(grid) == pytest.approx((1 / len(cells), sum(near) / len(near)))
