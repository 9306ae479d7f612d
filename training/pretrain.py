# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Pretrains an EsViT backbone on images without labels (arXiv 2106.09785).

    python training/pretrain.py --recipe own_images_small --data photographs/ --output runs/mine
    accelerate launch training/pretrain.py --recipe swin_tiny_w7 --data imagenet/train
    torchrun --nproc_per_node 8 training/pretrain.py --recipe swin_tiny_w7 --data imagenet/train --mixed_precision bf16
    python training/pretrain.py --help

A student sees all crops of an image, a teacher the two global ones. The student learns to give each of its views the
distribution over prototypes that the teacher gives to another, global view, and each of its regions that of the most
similar region there. The teacher is an exponential moving average (EMA) of the student. The same command again
continues a stopped run. The result is the model folder OUTPUT/teacher. In Python,
`pretrain("own_images_small", data="photographs", output="runs/mine")` does the same.

This file is the algorithm. Checks, checkpoints, logging and evaluation are in `run/`, and the losses in
`modeling_esvit/losses.py`.
"""

import os
import sys
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import torch

from modeling_esvit import losses
from modeling_esvit.losses import CenterUpdate, EsViTLoss, make_crop_layout
from modeling_esvit.matmul_precision import restore_precision
from modeling_esvit.model_outputs import EsViTForPreTrainingOutput
from modeling_esvit.programs.lost_process import report_lost_process
from modeling_esvit.storage.url_secrets import hide_secrets
from training.data.loader import Batch
from training.data.lost_workers import report_lost_worker
from training.learning.compiling import STATIC, is_compiled
from training.learning.networks import choose_loss_method, prepare_networks
from training.learning.optimizer import (
    apply_gradients,
    clip_gradients,
    flag_non_finite,
    freeze_backbone,
    freeze_last_layer,
    set_schedules,
    update_teacher,
)
from training.learning.running_statistics import RunningStatistics, list_batch_norms
from training.monitoring.monitor import StepOutcome
from training.monitoring.out_of_memory import advise_on_memory
from training.monitoring.region_matches import count_matches
from training.options.pretrain_options import PretrainOptions, make_options, read_options
from training.options.system import check_system
from training.run.checks import CheckedRun, check_run
from training.run.dry_run import dry_run
from training.run.last_words import exit_as_one
from training.run.session import PretrainResult, Session
from training.views.mixup import draw_mixings, mix
from training.views.on_device import augment, make_statistics


class Pretraining:
    """Trains a student and its teacher. Every process makes one, with equal weights.

    Attributes:
        student, teacher: The bare models f_s and f_t.
        wrapped: The student as Accelerate prepared it: its backward pass averages gradients over processes.
        plan: The numbers of steps, and the schedules.
    """

    def __init__(self, options: PretrainOptions, checked: CheckedRun | None = None):
        """Checks everything that the run needs, unless `checked` is given, and builds the networks.

        Raises:
            EsViTError: Something that a user can put right.
        """
        checked = checked or check_run(options)
        self.options, self.plan, self.accelerator = checked.options, checked.plan, checked.accelerator
        networks = prepare_networks(self.options, self.accelerator)
        self.student, self.teacher, self.wrapped, self.optimizer = networks
        self.running_statistics = RunningStatistics(self.student, self.teacher)
        self.is_compiled = is_compiled(self.options, self.accelerator.device)
        self.loss_method = choose_loss_method(
            self.accelerator.mixed_precision, self.accelerator.device, compiled=self.is_compiled
        )
        self.augment = torch.compile(augment, **STATIC) if self.is_compiled else augment
        self.statistics = make_statistics(self.accelerator.device)  # of the images' channels
        self.session = Session(checked, networks)

    def run(self) -> PretrainResult:
        """Trains to the end, or to `max_steps`; continues a stopped run.

        Raises:
            EsViTError: Something that a user can put right.
            InterruptedRunError: A signal stopped the run, after a checkpoint.
        """
        with self.session as session:
            with session.steps() as steps:
                for step, batches in steps:
                    if step == session.first_step:
                        session.draw_views(self.make_views(batches[0]))
                    outcome = self.train_step(batches, step)
                    session.end_step(step + 1, outcome)  # logs, and evaluates and saves if it is time
            return session.finish()

    def train_step(self, batches: list[Batch], step: int) -> StepOutcome:
        """Updates student, centres and teacher once, from `gradient_accumulation_steps` batches.

        If a loss or a gradient is not finite, on any process, nothing is updated. The flag for it is never read on the
        host, so a step never waits for the device.
        """
        epoch = self.plan.epoch(step)
        set_schedules(self.optimizer, self.plan.lr[step], self.plan.weight_decay[step])
        self.switch_attention_mode(epoch)
        self.switch_statistics(epoch)
        self.running_statistics.keep()
        center_updates = self.begin_center_updates()
        measures_matches = (step + 1) % self.options.log_every == 0
        values, embeddings, matches = [], [], []
        for batch in batches:
            with self.accelerator.accumulate(self.wrapped):
                loss, teacher_output, counts = self.compute_loss(batch, epoch, measures_matches)
                for task, update in center_updates.items():
                    update.add(teacher_output[f"{task}_embeddings"], teacher_output[f"{task}_prototypes"])
                    if batch is batches[-1]:
                        update.start()  # the sum over processes, beside the backward pass
                self.accelerator.backward(loss.loss)
            values.append(loss.values())
            embeddings.append(teacher_output.view_embeddings)
            matches += [] if counts is None else [counts]
        skip = flag_non_finite([each["loss"] for each in values], self.prepare_gradients(epoch))
        apply_gradients(self.optimizer, skip, self.accelerator.scaler)
        self.optimizer.zero_grad()
        for update in center_updates.values():
            update.finish(skip)
        self.running_statistics.restore(skip)
        update_teacher(self.teacher, self.student, self.plan.momentum[step], skip)
        return StepOutcome(values, embeddings, [batch.positions for batch in batches], skip, matches)

    def compute_loss(
        self, batch: Batch, epoch: int, measures_matches: bool = False
    ) -> tuple[EsViTLoss, EsViTForPreTrainingOutput, torch.Tensor | None]:
        """Returns the view and region loss of one batch, and the teacher's output, which updates the centres.

        Also returns how many regions find their own place, if that is to be measured: see `count_matches`.
        """
        options, grid = self.options, self.student.config.region_grid
        views = self.make_views(batch)
        with torch.no_grad(), self.accelerator.autocast():
            teacher_output = self.teacher(views[:1])  # the two global crops
        views, mixing = self.mix_views(views, batch, epoch)
        student_output = self.wrapped(views)  # all crops
        layout, by_location = make_crop_layout(views, len(batch.positions), grid), self.matches_by_location(epoch)
        places = self.move_places(batch) if by_location or measures_matches else None
        loss = losses.esvit_loss(  # centres and sharpens the teacher's logits, and takes the softmax of both
            student_output,
            teacher_output,
            layout,
            view_center=self.teacher.view_center,
            region_center=self.teacher.region_center,
            teacher_temp=self.plan.teacher_temp[epoch],  # tau_t
            student_temp=options.student_temp,  # tau_s
            mixing=mixing,
            places=places if by_location else None,
            method=self.loss_method,
            **options.loss_weights(),
        )
        if places is None or not measures_matches:
            return loss, teacher_output, None
        columns = grid(*views[0].shape[-2:])[1]
        return loss, teacher_output, count_matches(student_output, teacher_output, layout, places, columns)

    def matches_by_location(self, epoch: int) -> bool:
        """Returns whether the target of a region is the one at the same place, instead of the most similar one."""
        feature_epoch = self.options.find_feature_epoch()
        return feature_epoch is None or epoch < feature_epoch

    def move_places(self, batch: Batch) -> torch.Tensor | None:
        """Moves the places of the regions to the device; None for the view task."""
        return None if batch.places is None else batch.places.to(self.accelerator.device, non_blocking=True)

    def make_views(self, batch: Batch) -> list[torch.Tensor]:
        """Moves the crops of a batch to the device, in groups `[crops * B, 3, h, w]`, augmented and normalised.

        The first group holds the two global crops, each further one a set of local crops.
        """
        device = self.accelerator.device
        groups = [group.to(device, non_blocking=True) for group in batch.groups]
        if batch.parameters is None:  # the loader's workers have augmented them
            return groups
        parameters = [rows.to(device, non_blocking=True) for rows in batch.parameters]
        return [self.augment(*each, self.statistics) for each in zip(groups, parameters, strict=True)]

    def mix_views(
        self, views: list[torch.Tensor], batch: Batch, epoch: int
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Mixes the student's views by mixup or CutMix; also returns the shares for the loss, None without mixing."""
        options = self.options
        if not options.mixup and not options.cutmix:
            return views, None
        key = {"seed": options.seed, "epoch": epoch, "position": int(batch.positions[0])}
        mixings = draw_mixings(views, len(batch.positions), **key, mixup=options.mixup, cutmix=options.cutmix)
        return mix(views, mixings, len(batch.positions))

    def begin_center_updates(self) -> dict[str, CenterUpdate]:
        """Starts an update of the centre of each task. The losses of this step still use the old centres."""
        centers = {"view": self.teacher.view_center, "region": self.teacher.region_center}
        momentum = self.options.center_momentum
        return {task: CenterUpdate(center, momentum) for task, center in centers.items() if center is not None}

    def prepare_gradients(self, epoch: int) -> torch.Tensor:
        """Clips the gradient of each parameter by itself, as DINO does, and freezes parts in the first epochs.

        Returns the norms before clipping.
        """
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.unscale_(self.optimizer)
        norms = clip_gradients(self.student.parameters(), self.options.clip_grad)
        if epoch < self.options.freeze_last_layer:
            freeze_last_layer(self.student)
        if epoch < self.options.freeze_backbone_epochs:
            freeze_backbone(self.student)
        return norms

    def switch_statistics(self, epoch: int) -> None:
        """Lets the BatchNorms of a frozen backbone normalise by their running statistics, and leave these as they are.

        Otherwise they would move away from the weights, which cannot follow.
        """
        options = self.options
        if options.freeze_backbone_epochs or options.freeze_batch_norm:
            is_moving = epoch >= options.freeze_backbone_epochs and not options.freeze_batch_norm
            for network in (self.student, self.teacher):
                for norm in list_batch_norms(network.esvit):
                    norm.train(is_moving)

    def switch_attention_mode(self, epoch: int) -> None:
        """Lets the sparse attention of a ViL see all chunks, instead of random ones, towards the end of the run."""
        if self.student.config.vil_mode > 0 and epoch >= self.options.vil_mode_switch * self.options.epochs:
            for network in (self.student, self.teacher):
                network.esvit.encoder.set_mode(0)


def pretrain(recipe: str | os.PathLike[str] | None = None, **options: Any) -> PretrainResult | None:
    """Trains from Python, for example in a notebook, as the command does. The same call again continues a stopped run.

    Args:
        recipe: A YAML file of options, or the name of one in `recipes/`; `options` go on top of it.
        options: Fields of `PretrainOptions`, such as `data="photographs"`, `output="runs/mine"`, `epochs=100`.

    Returns:
        The model folder, the log and the last logged values; None for a dry run.

    Raises:
        EsViTError: Something that you can put right; the message says how.
    """
    return start(make_options(recipe, **options))


def start(options: PretrainOptions) -> PretrainResult | None:
    """Trains, or describes the run if it is a dry run.

    Raises:
        EsViTError: See `Pretraining`; also when the memory is not enough, or another process is lost.
    """
    check_system()
    with (
        restore_precision(),
        report_lost_process("longer than --process_timeout minutes"),
        report_lost_worker(),
        advise_on_memory(options),
    ):
        if options.dry_run:
            dry_run(options, lambda checked: Pretraining(options, checked).train_step)
            return None
        return Pretraining(options).run()


def main(arguments: list[str] | None = None) -> None:
    with exit_as_one():
        options = read_options(sys.argv[1:] if arguments is None else arguments)
        sys.argv[1:] = map(hide_secrets, sys.argv[1:])  # trackers record it
        start(options)


if __name__ == "__main__":
    main()
