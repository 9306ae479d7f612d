# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Plans a run: computes steps, global batch and schedules from the options, the data and the number of processes."""

from dataclasses import dataclass

import numpy as np

from modeling_esvit.images.wording import show_number
from training.data.batch_order import Lanes, count_steps
from training.learning.schedules import cosine_schedule, teacher_temp_schedule
from training.options.errors import OptionError
from training.options.pretrain_options import WARMUPS, PretrainOptions


MAX_STEPS = 100_000_000  # their schedules take 2.4 GB


@dataclass(frozen=True)
class Plan:
    """Holds the numbers of a run that follow from its options.

    Attributes:
        num_images: Number of images of the data.
        world_size: Number of processes.
        lanes: How a stream is dealt out: a lane for each process that began the run. They know the images of a step.
        first_step: Steps of the schedules before this run, see `first_epoch`.
        last_step: Step at which this run stops: `num_steps`, or `max_steps` if that is less.
        lr, weight_decay, momentum: `[num_steps]`, float64.
        teacher_temp: `[epochs]`, float64.
    """

    num_images: int
    world_size: int
    lanes: Lanes
    steps_per_epoch: int
    num_steps: int
    first_step: int
    last_step: int
    peak_lr: float
    lr: np.ndarray
    weight_decay: np.ndarray
    momentum: np.ndarray
    teacher_temp: np.ndarray

    def epoch(self, step: int) -> int:
        return step // self.steps_per_epoch

    def values(self, step: int) -> dict[str, float]:
        """Returns the values of all schedules at `step`, for the log."""
        return {
            "epoch": self.epoch(step),
            "lr": self.lr[step].item(),
            "weight_decay": self.weight_decay[step].item(),
            "momentum_teacher": self.momentum[step].item(),
            "teacher_temp": self.teacher_temp[self.epoch(step)].item(),
        }


def make_plan(options: PretrainOptions, num_images: int, world_size: int, lanes: Lanes | None = None) -> Plan:
    """Computes the plan of a run; `lanes` are those of a run that is continued.

    Raises:
        DataOptionError: The data are too few for one step of every process.
        OptionError: The run is too long for its schedules, which have a value for each step, or ends before it begins.
    """
    per_process = options.batch_size * options.gradient_accumulation_steps
    steps = count_steps(num_images, per_process, world_size)
    num_steps = options.epochs * steps
    if num_steps > MAX_STEPS:
        raise OptionError(f"{options.epochs} epochs of {steps} steps are more than {MAX_STEPS:,} steps: lower epochs.")
    first_step, last_step = options.first_epoch * steps, min(options.max_steps or num_steps, num_steps)
    if last_step <= first_step:
        raise OptionError(
            f"max_steps {options.max_steps} counts the steps of the schedules, of which first_epoch "
            f"{options.first_epoch} leaves out the first {first_step}: give more, or leave it out."
        )
    peak_lr = options.lr * per_process * world_size / 256
    schedule = (options.epochs, steps)
    return Plan(
        num_images=num_images,
        world_size=world_size,
        lanes=lanes or Lanes(world_size, options.batch_size, options.gradient_accumulation_steps),
        steps_per_epoch=steps,
        num_steps=num_steps,
        first_step=first_step,
        last_step=last_step,
        peak_lr=peak_lr,
        lr=cosine_schedule(peak_lr, options.min_lr, *schedule, warmup_epochs=options.cut_warmup("warmup_epochs")),
        weight_decay=cosine_schedule(options.weight_decay, options.weight_decay_end, *schedule),
        momentum=cosine_schedule(options.momentum_teacher, 1.0, *schedule),
        teacher_temp=teacher_temp_schedule(
            options.warmup_teacher_temp,
            options.teacher_temp,
            options.cut_warmup("warmup_teacher_temp_epochs"),
            options.epochs,
        ),
    )


def describe_length(plan: Plan, before: int, step: int) -> str:
    """Says what changes from `step` on if a run of `before` epochs has become longer; else returns nothing."""
    epochs = plan.num_steps // plan.steps_per_epoch
    if epochs == before:
        return ""
    return (
        f"Epochs were {before} and are {epochs}: from step {step} on all schedules are those of a run of {epochs} "
        f"epochs from its beginning, and the learning rate is {plan.lr[step]:.3g} there."
    )


def describe_plan(options: PretrainOptions, plan: Plan) -> list[str]:
    """Returns the derived values as lines, each with its formula."""
    crops = 2 + sum(options.local_crops_numbers)
    stopping = f", from {plan.first_step} on" if plan.first_step else ""
    stopping += f", stopping at {plan.last_step}" if plan.last_step < plan.num_steps else ""
    cut = [
        f"{name} {getattr(options, name)} -> {options.cut_warmup(name)}"
        for name in WARMUPS
        if options.cut_warmup(name) < getattr(options, name)
    ]
    return [
        f"images a step    = {options.batch_size} a process x {show_number(plan.world_size, 'processes')} x "
        f"{options.gradient_accumulation_steps} accumulated = {plan.lanes.images_per_step}, each in {crops} crops",
        f"peak lr          = {options.lr:g} x {plan.lanes.images_per_step} / 256 = {plan.peak_lr:.3g}",
        f"steps an epoch   = floor({plan.num_images} images / {plan.lanes.images_per_step}) = {plan.steps_per_epoch}",
        f"steps            = {options.epochs} epochs x {plan.steps_per_epoch} = {plan.num_steps}{stopping}",
        *(
            [f"warm-ups cut     = {', '.join(cut)}: half of the epochs, since they are longer than these"]
            if cut
            else []
        ),
        *describe_matching(options),
    ]


def describe_matching(options: PretrainOptions) -> list[str]:
    """Returns a line that says in which epochs regions are matched in which way, if there are two."""
    first = options.find_feature_epoch()
    if options.region_matching != "location_then_feature" or first is None:
        return []
    if options.first_epoch < first < options.epochs:
        epochs = f"by location up to epoch {first} of {options.epochs}, then by feature"
    else:
        epochs = f"by {'location' if first >= options.epochs else 'feature'} in all epochs of this run"
    return [f"region matching  = {epochs} (region_matching_switch {options.region_matching_switch:g})"]
