# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains with regions matched by location: exact when continued, accumulated, packed and shared by processes."""

import pytest

from tests.helpers.commands import run_program, torchrun
from tests.helpers.tiny_runs import (
    assert_equal_weights,
    read_log,
    read_losses,
    tiny,
    tiny_options,
    train,
)
from training.options.errors import OptionError
from training.options.pretrain_options import parse_options


LOCATION = {"region_matching": "location", "drop_path_rate": 0.0, "freeze_last_layer": 0}


@pytest.fixture(scope="module")
def by_location(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("location")
    train(tiny_options(images, folder, **LOCATION))
    return folder


def read_region_losses(folder) -> list[float]:
    return [record["region_loss"] for record in read_log(folder)]


def test_only_the_region_loss_differs_in_the_first_step(images, by_location, tmp_path):
    train(tiny_options(images, tmp_path, **{**LOCATION, "region_matching": "feature", "max_steps": 1}))
    feature, location = read_log(tmp_path)[0], read_log(by_location)[0]
    assert feature["view_loss"] == location["view_loss"] and feature["region_loss"] != location["region_loss"]


def test_a_stopped_run_continues_exactly(images, by_location, tmp_path):
    train(tiny_options(images, tmp_path, **LOCATION, max_steps=2))
    train(tiny_options(images, tmp_path, **LOCATION))
    assert read_losses(tmp_path) == read_losses(by_location)
    assert_equal_weights(tmp_path / "teacher", by_location / "teacher")


@pytest.mark.parametrize("changes", [{"batch_size": 4, "gradient_accumulation_steps": 2}, {"augment_on": "device"}])
def test_batches_may_be_made_in_other_ways(images, by_location, tmp_path, changes):
    train(tiny_options(images, tmp_path, **LOCATION, **changes))
    tolerance = 0.02 if "augment_on" in changes else 1e-5
    assert read_region_losses(tmp_path)[0] == pytest.approx(read_region_losses(by_location)[0], rel=tolerance)
    assert read_losses(tmp_path) == pytest.approx(read_losses(by_location), rel=10 * tolerance)


@pytest.mark.parametrize("switch, steps", [(0.0, 0), (0.5, 3), pytest.param(1.0, 6, marks=pytest.mark.slow)])
def test_location_then_feature(images, by_location, tmp_path, switch, steps):
    """Of two epochs with three steps each, the share before the switch is that of the run by location."""
    changes = {**LOCATION, "region_matching": "location_then_feature", "region_matching_switch": switch}
    train(tiny_options(images, tmp_path, **changes))
    pairs = zip(read_losses(tmp_path), read_losses(by_location), strict=True)
    assert [one == other for one, other in pairs] == [True] * steps + [False] * (6 - steps)


def test_the_view_task_has_no_regions():
    with pytest.raises(OptionError, match="region_matching location is for --task view\\+region"):
        parse_options(["--task", "view", "--region_matching", "location"])


@pytest.mark.slow
def test_two_processes_equal_one(images, by_location, tmp_path):
    changes = "--region_matching location --batch_size 4 --drop_path_rate 0"
    run_program([*torchrun(2), "training/pretrain.py", *tiny(images, tmp_path / "two", changes)])
    assert read_region_losses(tmp_path / "two") == pytest.approx(read_region_losses(by_location), rel=1e-4)
