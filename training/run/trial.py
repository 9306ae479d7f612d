# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures for about a minute what a run would be like: what its loader delivers, and how long a step takes.

The steps are real, with forward, backward and update, but on networks of their own; nothing is written. Where a step of
the whole batch would take too long, they take fewer images, and the time is scaled.
"""

import itertools
import time
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from training.data.loader import Batch, iterate, take_images
from training.data.sources import ImageSource
from training.data.workers import count_workers
from training.learning.networks import build_loader
from training.learning.plan import Plan
from training.options.pretrain_options import PretrainOptions


LOADER_SECONDS, STEP_SECONDS = 10.0, 60.0  # after which no further batch, or step, is begun
TIMED_STEPS = 2
FEW = 2  # images of the first steps, which say how many images the timed steps may have

TakeStep = Callable[[list[Batch], int], object]


class LoaderSpeed(NamedTuple):
    """Holds what a loader delivers to one process.

    Attributes:
        batch: The first batch.
        first_seconds: How long it took, with the start of the workers.
        images_per_second: The rate of those that follow; None if there are none.
    """

    batch: Batch
    first_seconds: float
    images_per_second: float | None


class StepTime(NamedTuple):
    """Holds how long a step takes.

    Attributes:
        images: Images of a batch of the timed steps.
        seconds: Mean time of the timed steps, scaled to the batch size of the run.
    """

    images: int
    seconds: float


def measure_loader(
    options: PretrainOptions, source: ImageSource, plan: Plan, accelerator: Accelerator, step: int
) -> LoaderSpeed:
    """Measures the loader of this process from `step` on, with the run's workers, while nothing else is computed.

    The batches that the workers had begun together with the first one are not counted.
    """
    workers = count_workers(options.workers)
    started = time.perf_counter()
    loader = build_loader(options, source, plan, accelerator, step)
    with closing(iterate(loader, 60 * options.process_timeout)) as batches:
        first = next(batches)
        first_seconds = time.perf_counter() - started
        sum(1 for _ in itertools.islice(batches, max(workers - 1, 0)))
        counted, started = 0, time.perf_counter()
        for _ in itertools.islice(batches, 2 * workers + 2):
            counted += 1
            if time.perf_counter() - started > LOADER_SECONDS:
                break
        elapsed = time.perf_counter() - started
    return LoaderSpeed(first, first_seconds, counted * options.batch_size / elapsed if counted else None)


def time_steps(take_step: TakeStep, batch: Batch, options: PretrainOptions, device: torch.device) -> StepTime:
    """Measures two steps, after others that warm up. All processes call it, and take equally many images."""

    def measure(images: int) -> float:
        batches = [take_images(batch, images)] * options.gradient_accumulation_steps
        started = time.perf_counter()
        take_step(batches, 0)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter() - started

    few = min(FEW, options.batch_size)
    measure(few)
    per_image = max(gather_object([measure(few)])) / few
    affordable = int(STEP_SECONDS / (TIMED_STEPS + 1) / per_image) // 2 * 2  # mixup takes images in pairs
    images = min(max(affordable, few), options.batch_size)
    measure(images)
    seconds = sum(measure(images) for _ in range(TIMED_STEPS)) / TIMED_STEPS
    return StepTime(images, max(gather_object([seconds])) * options.batch_size / images)


def find_hours(options: PretrainOptions, loader: LoaderSpeed, step: StepTime, steps_left: int) -> float:
    """Returns how many hours the steps that are left take."""
    images, rate = options.batch_size * options.gradient_accumulation_steps, loader.images_per_second
    return steps_left * (max(step.seconds, images / rate) if rate else step.seconds) / 3600


def describe_trial(options: PretrainOptions, loader: LoaderSpeed, step: StepTime, steps_left: int) -> list[str]:
    """Returns lines that say what loader and device deliver, and how long the run takes."""
    images = options.batch_size * options.gradient_accumulation_steps
    device_rate, rate = images / step.seconds, loader.images_per_second
    scaled = f", of {step.images} images a batch and scaled" if step.images < options.batch_size else ""
    hours = find_hours(options, loader, step, steps_left)
    limited = 3600 * hours / steps_left if steps_left else step.seconds
    slower = "the loader, so the device waits: more --workers help where there are cores"
    return [
        f"loader           = {'not measured, too few batches' if rate is None else f'{rate:.1f} images/s'} for each "
        "process, while nothing else computes",
        f"step             = {step.seconds:.3g} s ({TIMED_STEPS} steps{scaled}, not compiled): the device takes "
        f"{device_rate:.1f} images/s for each process",
        f"time             = {steps_left} steps x {limited:.3g} s = {hours:.2f} h, beside "
        f"evaluations and checkpoints; the slower one is {slower if limited > step.seconds else 'the device'}",
    ]
