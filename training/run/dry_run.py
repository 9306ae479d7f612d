# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Describes a run, without training (`--dry_run`): what it would be, what a step takes, and what stands in its way.

It also tries the loader and some steps, for about a minute. Nothing is written but the index of tar files, which the
run then finds.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import fields, replace

import psutil
import torch

from modeling_esvit.images.wording import show_number
from training.data.sample_check import describe_sample
from training.learning.plan import describe_length
from training.options.errors import OptionError
from training.options.pretrain_options import PretrainOptions
from training.options.sections import SECTIONS
from training.run.advice import advise
from training.run.checks import (
    CheckedRun,
    Examination,
    check_loader_memory,
    complete,
    describe_run,
    examine_run,
    label_images,
)
from training.run.estimate import Estimate, estimate
from training.run.trial import LoaderSpeed, TakeStep, describe_trial, find_hours, measure_loader, time_steps


def dry_run(options: PretrainOptions, build: Callable[[CheckedRun], TakeStep]) -> None:
    """Prints what the run would be.

    Args:
        build: Returns what takes a step of a run, on networks of its own.

    Raises:
        EsViTError: The run cannot begin; see `check_run`.
    """
    started = time.perf_counter()
    examined = examine_run(options)
    accelerator = examined.accelerator
    accelerator.print(describe_options(options))
    if not options.problems():
        with examined.problems.collect():
            describe_step(examined)
    loader = None
    with examined.problems.collect():
        loader = try_data(examined)
    accelerator.wait_for_everyone()
    examined.problems.refuse(accelerator)
    assert loader is not None
    accelerator.print("\n".join(try_steps(complete(examined), loader, build)))
    accelerator.print(f"tried            = in {time.perf_counter() - started:.0f} s")
    if examined.found and examined.plan:
        progress = examined.found[1]
        if length := describe_length(examined.plan, progress.options["epochs"], progress.step):
            accelerator.print(length)
    begin = f"continue from {examined.found[0]}" if examined.found else "begin"
    accelerator.print(f"Nothing stands in its way: without --dry_run the run would {begin}.")
    accelerator.end_training()


def try_steps(checked: CheckedRun, loader: LoaderSpeed, build: Callable[[CheckedRun], TakeStep]) -> list[str]:
    """Takes some steps, and returns lines on them. Nothing is compiled, which would take longer than the steps."""
    options, device = replace(checked.options, compile="off"), checked.accelerator.device
    step = time_steps(build(replace(checked, options=options)), loader.batch, options, device)
    left = checked.plan.last_step - find_step(checked)
    hours = find_hours(options, loader, step, left)
    advice = advise(options, len(checked.source), checked.plan.num_steps, hours)
    return [*describe_trial(options, loader, step, left), *advice]


def find_step(run: CheckedRun | Examination) -> int:
    """Returns the number of the schedules' steps that are done."""
    if run.found is not None:
        return run.found[1].step
    return 0 if run.plan is None else run.plan.first_step


def describe_options(options: PretrainOptions) -> str:
    """Returns every option, section by section, as in a recipe."""
    lines = []
    for section in SECTIONS:
        lines.append(f"# {section._argument_group_name}")
        lines += [f"{field.name}: {json.dumps(getattr(options, field.name))}" for field in fields(section)]
    return "\n".join(lines)


def describe_step(examined: Examination) -> None:
    """Prints the plan, and what a step takes.

    Raises:
        OptionError: The step does not fit into the device's memory.
    """
    accelerator, options = examined.accelerator, examined.options
    counted = estimate(options, accelerator.device)
    accelerator.print(describe_run(examined, counted.parameters))
    accelerator.print("\n".join(describe_estimate(options, counted, accelerator.num_processes)))
    available = find_memory(accelerator.device)
    if counted.total > available:
        raise OptionError(
            f"A process needs about {counted.total / 1e9:.1f} GB, and {accelerator.device} has "
            f"{available / 1e9:.1f} GB for each. Halve --batch_size and double --gradient_accumulation_steps, which "
            "gives the same result, or add --gradient_checkpointing."
        )


def describe_estimate(options: PretrainOptions, counted: Estimate, processes: int) -> list[str]:
    """Returns lines that say what a step takes, each with its formula."""
    parts = {
        "student": counted.student,
        "gradients": counted.gradients,
        "AdamW": counted.moments,
        "teacher": counted.teacher,
        "activations and buffers": counted.activations,
    }
    shown = " + ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items() if size)
    images = options.batch_size * options.gradient_accumulation_steps
    step = counted.flops_per_image * images
    return [
        f"memory           = {shown} = {counted.total / 1e9:.2f} GB a process, beside torch itself",
        f"operations       = {counted.flops_per_image / 1e9:.1f} GFLOP an image x {images} = {step / 1e12:.2f} TFLOP a "
        f"step and process, x {show_number(processes, 'processes')} = {step * processes / 1e12:.2f} TFLOP",
        f"checkpoint       = {counted.checkpoint / 1e9:.2f} GB, {options.keep_checkpoints} kept, and the best",
    ]


def find_memory(device: torch.device) -> int:
    """Returns the bytes that each process of this machine can have."""
    if device.type == "cpu":
        return psutil.virtual_memory().total // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return torch.accelerator.get_memory_info(device)[1]


def try_data(examined: Examination) -> LoaderSpeed | None:
    """Measures the loader, decodes the first image of each labelled source, and prints a line on them.

    Raises:
        OptionError: The batches of the workers do not fit into the shared memory.
    """
    source, plan, options = examined.source, examined.plan, examined.options
    if source is None or plan is None:
        examined.accelerator.print("data             = not tried")
        return None
    check_loader_memory(examined)  # else the workers' batches would be lost, and waited for
    step = find_step(examined)
    if examined.accelerator.is_main_process:
        for line in describe_sample(source, options.max_unreadable):
            print(line)
    loader = measure_loader(options, source, plan, examined.accelerator, step if step < plan.num_steps else 0)
    for labelled in examined.knn_data or []:
        images = label_images(labelled, options)
        images.load(next(images.items(range(1))))
    examined.accelerator.print(
        f"data             = {len(source)} images; a first batch of {options.batch_size} made in "
        f"{loader.first_seconds:.1f} s, {show_number(len(loader.batch.skipped), 'unreadable images')} left out"
    )
    return loader
