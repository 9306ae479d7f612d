# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Trains a second stage, which goes on in the schedules of the first, with another task."""

import pytest

from tests.helpers.tiny_runs import read_log, read_losses, tiny_options, train
from training.options.errors import OptionError
from training.options.pretrain_options import parse_options


SCHEDULES = ("epoch", "lr", "weight_decay", "momentum_teacher", "teacher_temp")


@pytest.fixture(scope="module")
def first_stage(images, tmp_path_factory):
    """Trains four epochs with the view task, three steps each; the second stage starts after two of them."""
    folder = tmp_path_factory.mktemp("first")
    train(tiny_options(images, folder, task="view", epochs=4, keep_checkpoints=4))
    return folder


def second_stage(images, first_stage, output, **changes):
    start = first_stage / "checkpoints" / "step-00000006"
    return tiny_options(images, output, epochs=4, first_epoch=2, init_from=str(start), **changes)


def test_the_schedules_go_on(images, first_stage, tmp_path):
    train(second_stage(images, first_stage, tmp_path))
    whole, second = read_log(first_stage), read_log(tmp_path)
    assert [record["step"] for record in second] == [7, 8, 9, 10, 11, 12]
    assert all(record["region_loss"] > 0 for record in second)
    for ours, theirs in zip(second, whole[6:], strict=True):
        assert [ours[name] for name in SCHEDULES] == [theirs[name] for name in SCHEDULES]


@pytest.mark.slow
def test_a_stopped_second_stage_continues_exactly(images, first_stage, tmp_path):
    train(second_stage(images, first_stage, tmp_path / "whole"))
    train(second_stage(images, first_stage, tmp_path / "parts", max_steps=8))
    assert [record["step"] for record in read_log(tmp_path / "parts")] == [7, 8]
    train(second_stage(images, first_stage, tmp_path / "parts"))
    assert read_losses(tmp_path / "parts") == read_losses(tmp_path / "whole")


@pytest.mark.parametrize(
    "options, message",
    [
        ("--first_epoch 5", "first_epoch 5 goes on in another run's schedules: give its model as init_from"),
        ("--first_epoch -1", "first_epoch is -1, but must lie between 0 and epochs - 1"),
        ("--first_epoch 300 --init_from x", "first_epoch is 300, but must lie between 0 and epochs - 1 (299)"),
    ],
)
def test_epochs_that_cannot_be_the_first(options, message):
    with pytest.raises(OptionError) as error:
        parse_options(options.split())
    assert message in str(error.value)


def test_max_steps_counts_from_the_beginning_of_the_schedules(images, first_stage, tmp_path):
    with pytest.raises(OptionError, match="first_epoch 2 leaves out the first 6: give more, or leave it out"):
        train(second_stage(images, first_stage, tmp_path, max_steps=6))
