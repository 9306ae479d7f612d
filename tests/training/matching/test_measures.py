# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The measures of correspondence on features whose answer is known, and on pairs of views whose truth is visible."""

import math

import pytest
import torch

from training.matching.measures import (
    ALPHAS,
    MIRRORED_NAMES,
    Matches,
    average_scores,
    compute_mirrored_chance,
    find_best_matches,
    mirror_regions,
    score_mirrored,
    score_positions,
    select_apart,
)


GRID, SIZE = (7, 7), (224, 224)


def one_hot(order: torch.Tensor) -> torch.Tensor:
    """Features [1, T, T]: region i is like no other but region `order[i]` of the plain ones."""
    return torch.eye(len(order))[order][None]


def score_of_paper(features, others, grid=GRID, size=SIZE) -> dict[str, float]:
    scores = score_mirrored(find_best_matches(features, others), grid, size)
    return dict(zip(MIRRORED_NAMES, scores[0].tolist(), strict=True))


def test_features_that_follow_the_image_score_one():
    plain = torch.arange(49)
    assert mirror_regions(GRID)[:8].tolist() == [6, 5, 4, 3, 2, 1, 0, 13]
    assert score_of_paper(one_hot(plain), one_hot(mirror_regions(GRID))) == {
        "accuracy": 1.0,
        "distance": 0.0,
        "next_similarity": 1.0,
        "distinct": 1.0,
    }


def test_features_that_stay_in_place_are_right_in_the_middle_column_alone():
    """All are equally similar, so that the first ten regions count: one row and three more, of which one is right."""
    scores = score_of_paper(one_hot(torch.arange(49)), one_hot(torch.arange(49)))
    assert scores["accuracy"] == 0.1
    columns = [abs(6 - 2 * column) for column in (0, 1, 2, 3, 4, 5, 6, 0, 1, 2)]
    assert scores["distance"] == pytest.approx(32 * sum(columns) / 10)


def test_the_ten_most_similar_count():
    """Ten regions know their place, and are surer of it than the others are of a wrong one."""
    sure = torch.tensor([3, 8, 11, 17, 20, 24, 30, 33, 41, 48])
    matches = torch.zeros(1, 49, dtype=torch.int64)
    matches[0, sure] = mirror_regions(GRID)[sure]
    similarity = torch.linspace(0.1, 0.5, 49)[None].clone()
    similarity[0, sure] = torch.linspace(0.7, 0.9, 10)
    scores = score_mirrored(Matches(matches, similarity), GRID, SIZE)[0]
    assert scores[:2].tolist() == [1.0, 0.0]
    others = [region for region in range(49) if region not in sure]
    assert scores[2] == pytest.approx(similarity[0, others].max().item())
    # The surest of the others becomes surer than one that is right.
    similarity[0, others[-1]] = 0.71
    scores = score_mirrored(Matches(matches, similarity), GRID, SIZE)[0]
    row, column = divmod(others[-1], 7)
    assert scores[0] == 0.9 and scores[2] == pytest.approx(0.7)
    assert scores[1] == pytest.approx(32 * math.hypot(row, 6 - column) / 10)


def test_ties_go_to_the_first_region():
    flat = torch.ones(2, 49, 3)
    found = find_best_matches(flat, flat)
    assert (found.regions == 0).all() and found.similarity.allclose(torch.ones(2, 49))
    assert score_mirrored(found, GRID, SIZE)[:, 3].tolist() == pytest.approx([1 / 49] * 2)  # one hub
    scores = score_mirrored(Matches(found.regions, torch.ones(2, 49)), GRID, SIZE)
    assert scores[:, 0].tolist() == [0.1, 0.1]  # of regions 0 to 9, region 6 alone is mirrored to region 0


def test_drawn_regions_are_apart():
    regions = torch.tensor([0, 1, 8, 2, 14, 16, 48])
    assert select_apart(regions, columns=7, count=9, apart=2).tolist() == [0, 3, 4, 5, 6]
    assert select_apart(regions, columns=7, count=2, apart=3).tolist() == [0, 6]
    assert select_apart(regions[:0], columns=7, count=2, apart=3).tolist() == []


def test_fewer_than_ten_regions():
    grid, size = (2, 3), (64, 96)
    scores = score_of_paper(one_hot(torch.arange(6)), one_hot(mirror_regions(grid)), grid, size)
    assert (scores["accuracy"], scores["distance"]) == (1.0, 0.0) and math.isnan(scores["next_similarity"])
    stay = score_of_paper(one_hot(torch.arange(6)), one_hot(torch.arange(6)), grid, size)
    assert (stay["accuracy"], stay["distance"]) == (pytest.approx(1 / 3), pytest.approx(64 * 2 / 3))
    eleven = score_of_paper(one_hot(torch.arange(11)), one_hot(mirror_regions((1, 11))), (1, 11), (20, 220))
    assert eleven["next_similarity"] == 1.0


def test_chance_is_what_random_features_score():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 400, 49, 8, generator=generator)
    scores = score_mirrored(find_best_matches(*features), GRID, SIZE).mean(0)
    chance = compute_mirrored_chance(GRID, SIZE)
    assert scores[0] == pytest.approx(chance["chance_accuracy"], abs=0.006) and chance["chance_accuracy"] == 1 / 49
    assert scores[1] == pytest.approx(chance["chance_distance"], rel=0.05)
    truth = torch.rand(400, 49, 2, generator=generator, dtype=torch.float64) * 224
    placed = average_scores(score_positions(find_best_matches(*features).regions, truth, GRID, SIZE))
    for name in ("within_one", "exact", "error", "pck_0.1", "pck_0.3"):
        assert placed[name] == pytest.approx(placed[f"chance_{name}"], rel=0.1)


def test_positions():
    """Exact, one off diagonally, two off, unknown; distances from the position, not from its region's centre."""
    truth = torch.tensor([[[16.0, 16.0], [20.0, 16.0], [80.0, 208.0], [math.nan, math.nan]]])
    matches = torch.tensor([[0, 8, 42, 5]])
    sums = score_positions(matches, truth, GRID, SIZE)
    assert sums.shape == (1, 1 + 4 * (3 + len(ALPHAS)))
    scores = average_scores(sums)
    assert scores["regions"] == 3
    assert (scores["within_one"], scores["exact"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    errors = [0.0, math.hypot(28, 32), 64.0]
    assert scores["error"] == pytest.approx(sum(errors) / 3)
    for alpha in ALPHAS:
        assert scores[f"pck_{alpha:g}"] == pytest.approx(sum(error <= alpha * 224 for error in errors) / 3)
    assert scores["nearest_within_one"] == scores["nearest_exact"] == 1
    assert scores["nearest_error"] == pytest.approx(4 / 3)
    assert scores["same_place_exact"] == pytest.approx(1 / 3) and scores["chance_exact"] == pytest.approx(1 / 49)
    assert scores["chance_within_one"] == pytest.approx((4 + 4 + 6) / 3 / 49)
    nothing = average_scores(score_positions(matches[:, 3:], truth[:, 3:], GRID, SIZE))
    assert nothing["regions"] == 0 and math.isnan(nothing["within_one"])


def test_images_do_not_mix():
    """The sums of a batch are those of its images, also across the limit of regions that are compared at a time."""
    generator = torch.Generator().manual_seed(1)
    matches = torch.randint(49, (60, 49), generator=generator)
    truth = torch.rand(60, 49, 2, generator=generator, dtype=torch.float64) * 224
    truth[torch.rand(60, 49, generator=generator) < 0.5] = math.nan
    together = score_positions(matches, truth, GRID, SIZE)
    each = [score_positions(matches[i : i + 1], truth[i : i + 1], GRID, SIZE) for i in range(60)]
    torch.testing.assert_close(together, torch.cat(each))
