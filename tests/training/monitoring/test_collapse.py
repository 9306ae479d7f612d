# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the measures of collapse on features of known rank, and when a warning is given."""

import math

import pytest
import torch

from training.monitoring.collapse import PATIENCE, CollapseWatch, compute_rank_me, spread


@pytest.mark.parametrize("rows", [8, 200])
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_rank_of_equal_orthogonal_directions(rows, rank):
    """Visits `rank` orthogonal directions equally often, which gives `rank` equal singular values."""
    directions = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)))[0][:rank]
    features = directions.repeat(rows // rank, 1)
    assert compute_rank_me(features) == pytest.approx(rank, rel=1e-4)


def test_spread():
    generator = torch.Generator().manual_seed(0)
    everywhere = torch.nn.functional.normalize(torch.randn(4000, 32, generator=generator), dim=1)
    assert spread(everywhere) == pytest.approx(1, abs=0.02)
    assert spread(everywhere[:1].expand(100, -1)) == pytest.approx(0, abs=1e-6)


def warnings_of(watch: CollapseWatch, losses, rank: float = 50.0) -> dict[int, list[str]]:
    """Returns the warnings at every tenth step from 10 on."""
    said = {10 * index: watch.find_warnings(10 * index, loss, rank) for index, loss in enumerate(losses, 1)}
    return {step: messages for step, messages in said.items() if messages}


def test_a_loss_at_ln_k_is_warned_of_once_after_the_warm_up():
    stuck = [math.log(1024) * 1.005] * 200
    said = warnings_of(CollapseWatch(1024, warm_step=300), stuck)
    (step,) = said
    assert step == 310 + PATIENCE and "since step 310" in said[step][0] and "ln K = 6.93" in said[step][0]


def test_a_break_starts_the_count_anew():
    uniform, learning = math.log(1024), math.log(1024) * 0.98
    losses = [uniform] * 40 + [learning] + [uniform] * 100
    assert list(warnings_of(CollapseWatch(1024, warm_step=0), losses)) == [420 + PATIENCE]
    assert not warnings_of(CollapseWatch(1024, warm_step=0), [learning] * 200)


def test_a_low_rank_is_warned_of():
    said = warnings_of(CollapseWatch(1024, warm_step=0), [3.0] * 100, rank=2.0)
    assert list(said) == [10 + PATIENCE] and "effective rank" in said[10 + PATIENCE][0]


def watch_matches(
    feature_step: int | None, accuracy: float, distinct: float, chance: float = 0.02
) -> dict[int, list[str]]:
    """Returns the warnings at every tenth step from 10 on, of a run with these matches and nothing else wrong."""
    matches = {"region_match_accuracy": accuracy, "region_match_chance": chance, "region_match_distinct": distinct}
    watch = CollapseWatch(1024, warm_step=0, feature_step=feature_step)
    said = {step: watch.find_warnings(step, 3.0, 50.0, matches) for step in range(10, 2000, 10)}
    return {step: messages for step, messages in said.items() if messages}


@pytest.mark.parametrize(("accuracy", "distinct"), [(0.03, 0.9), (0.5, 0.1)])
def test_wrong_matches_are_warned_of_where_they_are_the_targets(accuracy, distinct):
    said = watch_matches(0, accuracy, distinct)
    assert list(said) == [10 + PATIENCE] and "learns from wrong matches" in said[10 + PATIENCE][0]
    assert f"({accuracy:.0%} are right, chance 2%; {distinct:.0%} of" in said[10 + PATIENCE][0]
    assert "--region_matching location, or from a trained model (--init_from)" in said[10 + PATIENCE][0]
    assert list(watch_matches(1000, accuracy, distinct)) == [1010 + PATIENCE]
    assert not watch_matches(None, accuracy, distinct)


def test_good_matches_are_not():
    assert not watch_matches(0, 0.05, 0.8)


@pytest.mark.parametrize(("chance", "good", "bad"), [(1.0, 1.0, None), (0.5, 0.9, 0.5), (0.25, 0.5, 0.4)])
def test_of_few_regions_good_matches_are_known_as_well(chance, good, bad):
    """One region is always right, and of two nothing can be right twice as often as by chance."""
    assert not watch_matches(0, good, 1.0, chance)
    assert bad is None or watch_matches(0, bad, 1.0, chance)
