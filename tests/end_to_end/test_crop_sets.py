# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains with several sets of local crops and with each policy of augmentation."""

import math
from pathlib import Path

import pytest

from tests.helpers.tiny_runs import read_losses, tiny, train
from training.options.pretrain_options import parse_options
from training.views.draw import POLICIES


def losses(images: Path, output: Path, changes: str) -> list[float]:
    """Returns the losses of two steps, the second of which has a learning rate."""
    train(tiny(images, output, f"{changes} --max_steps 2 --drop_path_rate 0"))
    return read_losses(output)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["view", "view+region"])
def test_sets_of_local_crops(images, tmp_path, task):
    """Draws the same crops in one set or in two: the losses are the same."""
    one = losses(images, tmp_path / "one", f"--task {task} --local_crop_sizes 16 --local_crops_numbers 3")
    two = losses(images, tmp_path / "two", f"--task {task} --local_crop_sizes 16 16 --local_crops_numbers 2 1")
    assert two == pytest.approx(one, rel=1e-6)
    sizes = f"--task {task} --local_crop_sizes 24 16 --local_crops_numbers 2 1"
    other = losses(images, tmp_path / "sizes", sizes)
    device = losses(images, tmp_path / "device", f"{sizes} --augment_on device")
    assert all(map(math.isfinite, other)) and other != pytest.approx(one, rel=1e-3)
    assert device == pytest.approx(other, rel=0.02)


@pytest.mark.slow
def test_an_empty_set_of_local_crops_adds_nothing(images, tmp_path):
    one = losses(images, tmp_path / "one", "--local_crop_sizes 16 --local_crops_numbers 2")
    for name, numbers in (("last", "2 0"), ("first", "0 2")):
        assert losses(images, tmp_path / name, f"--local_crop_sizes 16 16 --local_crops_numbers {numbers}") == one


@pytest.mark.slow
def test_every_policy_trains_in_its_own_way(images, tmp_path):
    first = [losses(images, tmp_path / name, f"--augmentation {name}")[0] for name in POLICIES]
    assert all(map(math.isfinite, first)) and len(set(first)) == len(POLICIES) == 4


def test_the_options_know_every_policy():
    for name in POLICIES:
        assert parse_options(["--augmentation", name]).augmentation == name
