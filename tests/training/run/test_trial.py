# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what a dry run measures: steps of fewer images where they are slow, and what follows for the run."""

import time

import pytest
import torch

from tests.helpers.tiny_runs import tiny
from training.data.loader import Batch, take_images
from training.learning.networks import build_loader
from training.options.pretrain_options import parse_options
from training.pretrain import Pretraining
from training.run.trial import LoaderSpeed, StepTime, describe_trial, time_steps


def make_trial(images, tmp_path, changes: str) -> tuple[Pretraining, Batch]:
    run = Pretraining(parse_options(tiny(images, tmp_path / "run", changes)))
    return run, next(iter(build_loader(run.options, run.session.source, run.plan, run.accelerator, 0)))


@pytest.mark.parametrize("changes", ["", "--augment_on device"])
def test_the_first_images_of_a_batch(images, tmp_path, changes):
    """Takes the same views as a smaller batch has."""
    _, whole = make_trial(images, tmp_path, changes)
    _, small = make_trial(images, tmp_path, f"{changes} --batch_size 2")
    part = take_images(whole, 2)
    for ours, theirs in zip(part.groups, small.groups, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    for ours, theirs in zip(part.parameters or [], small.parameters or [], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert torch.equal(part.positions, small.positions)


def test_steps_that_would_take_long_have_fewer_images(images, tmp_path, monkeypatch):
    """Plays a device that takes 7 s for an image, and so has time for 2 of 8 images a step."""
    run, batch = make_trial(images, tmp_path, "--gradient_accumulation_steps 2 --epochs 3")
    clock, taken = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def take_step(batches: list[Batch], step: int) -> None:
        taken.append([len(batch.positions) for batch in batches])
        clock[0] += 3.5 * sum(taken[-1])

    found = time_steps(take_step, batch, run.options, torch.device("cpu"))
    assert taken == [[2, 2]] * 5 and found == (2, 56.0)
    monkeypatch.setattr("training.run.trial.STEP_SECONDS", 10**4)
    assert time_steps(take_step, batch, run.options, torch.device("cpu")) == (8, 56.0)
    assert taken[5:] == [[2, 2]] * 2 + [[8, 8]] * 3


def test_the_slower_of_loader_and_device_decides(images, tmp_path):
    options = parse_options(tiny(images, tmp_path, "--batch_size 8"))
    batch = Batch([], torch.arange(8), None, {})
    loader = LoaderSpeed(batch, 1.0, 4.0)
    slow = "\n".join(describe_trial(options, loader, StepTime(8, 1.0), 1800))
    assert "the device takes 8.0 images/s" in slow and "= 1800 steps x 2 s = 1.00 h" in slow
    assert "the slower one is the loader, so the device waits: more --workers" in slow
    fast = "\n".join(describe_trial(options, loader._replace(images_per_second=80.0), StepTime(4, 1.0), 1800))
    assert "2 steps, of 4 images a batch and scaled, not compiled" in fast and "= 0.50 h" in fast
    assert "the slower one is the device" in fast
