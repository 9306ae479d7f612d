# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the numbers of a run that follow from its options."""

import pytest

from modeling_esvit.images.data_errors import DataOptionError
from training.learning.plan import describe_plan, make_plan
from training.options.errors import OptionError
from training.options.pretrain_options import parse_options


def test_steps_and_schedules():
    given = "--epochs 4 --warmup_epochs 1 --warmup_teacher_temp_epochs 2 --batch_size 8 --gradient_accumulation_steps 2"
    options = parse_options(f"{given} --lr 0.001 --max_steps 5".split())
    plan = make_plan(options, num_images=100, world_size=3)
    assert (plan.lanes.images_per_step, plan.steps_per_epoch, plan.num_steps, plan.last_step) == (48, 2, 8, 5)
    assert plan.peak_lr == pytest.approx(0.001 * 48 / 256) == plan.lr.max()
    assert len(plan.lr) == len(plan.weight_decay) == len(plan.momentum) == 8 and len(plan.teacher_temp) == 4
    assert plan.values(5)["epoch"] == plan.epoch(5) == 2 and plan.values(5)["lr"] == plan.lr[5]
    assert describe_plan(options, plan)[-1] == "steps            = 4 epochs x 2 = 8, stopping at 5"
    with pytest.raises(DataOptionError, match="47 images"):
        make_plan(options, num_images=47, world_size=3)


def test_a_run_of_too_many_steps_is_refused():
    options = parse_options(["--epochs", "1000000000000", "--batch_size", "8"])
    with pytest.raises(OptionError, match="1000000000000 epochs of 3 steps are more than 100,000,000 steps"):
        make_plan(options, num_images=24, world_size=1)


@pytest.mark.parametrize(
    "given, epochs",
    [
        ("--epochs 3", "by location up to epoch 2 of 3, then by feature (region_matching_switch 0.5)"),
        ("--epochs 1", "by location in all epochs of this run (region_matching_switch 0.5)"),
        (
            "--epochs 4 --first_epoch 2 --init_from runs/view",
            "by feature in all epochs of this run (region_matching_switch 0.5)",
        ),
    ],
)
def test_a_change_of_the_region_matching_is_said(given, epochs):
    options = parse_options([*given.split(), "--batch_size", "8", "--region_matching", "location_then_feature"])
    assert describe_plan(options, make_plan(options, num_images=24, world_size=1))[-1] == f"region matching  = {epochs}"


def test_values_of_schedules_are_plain_numbers():
    plan = make_plan(parse_options(["--batch_size", "8"]), num_images=24, world_size=1)
    assert {type(value) for name, value in plan.values(0).items() if name != "epoch"} == {float}


@pytest.mark.parametrize("given, warmups", [("--epochs 5", (2, 2)), ("--epochs 1", (0, 0)), ("--epochs 10", (10, 5))])
def test_warm_ups_that_are_longer_than_the_run_are_cut(given, warmups):
    """`--epochs 5` is what everybody types first; the warm-ups are 10 and 30 epochs."""
    options = parse_options([*given.split(), "--batch_size", "8"])
    plan = make_plan(options, num_images=80, world_size=1)
    assert (plan.lr.argmax(), plan.lr[-1] < plan.peak_lr) == (max(10 * warmups[0] - 1, 0), warmups[0] < options.epochs)
    assert (plan.teacher_temp < options.teacher_temp).sum() == max(warmups[1] - 1, 0)
    cut = "" if warmups[0] == 10 else f"warmup_epochs 10 -> {warmups[0]}, "
    assert describe_plan(options, plan)[-1] == (
        f"warm-ups cut     = {cut}warmup_teacher_temp_epochs 30 -> {warmups[1]}: half of the epochs, since they are "
        "longer than these"
    )
