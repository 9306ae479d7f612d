# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Student, teacher and optimizer of a run, and the step that moves them (arXiv 2106.09785, section 3.2)."""

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from modeling_esvit import EsViTForPreTraining
from modeling_esvit.batch_norm import join_batches
from modeling_esvit.losses import CenterUpdate, EsViTLoss, crop_layout, esvit_loss
from training.data.loader import Batch
from training.learning.networks import build_networks
from training.learning.optimizer import (
    apply_gradients,
    clip_gradients,
    drop_last_layer_gradients,
    not_finite,
    parameter_groups,
    set_schedules,
    update_teacher,
)
from training.learning.plan import Plan
from training.learning.running_statistics import RunningStatistics
from training.monitoring.monitor import Monitor
from training.options.pretrain_options import PretrainOptions
from training.views.mixup import draw_mixings, mix
from training.views.on_device import augment


class Learner:
    """Every process makes one, with equal weights. `student` and `teacher` are the bare models, `wrapped` is the student
    as Accelerate prepared it, whose backward pass averages gradients over processes.
    """

    def __init__(self, options: PretrainOptions, plan: Plan, accelerator: Accelerator):
        self.options = options
        self.plan = plan
        self.accelerator = accelerator
        set_seed(options.seed)
        self.student, self.teacher = build_networks(options, accelerator.device)
        if accelerator.num_processes > 1:
            join_batches(self.student)
            join_batches(self.teacher)
        self.teacher.to(accelerator.device)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.student), lr=0.0, fused=True)
        self.augment = augment
        if options.compile:
            # Sizes never change in a run. Symbolic ones, which torch tries where student and teacher differ, can take
            # more than half an hour.
            self.student.compile(dynamic=False)
            self.teacher.compile(dynamic=False)
            self.augment = torch.compile(augment)
        self.wrapped = accelerator.prepare(self.student)
        self.running_statistics = RunningStatistics(self.student, self.teacher)
        # Each process draws its own stochastic depth; weights were drawn alike.
        set_seed(options.seed, device_specific=True)

    def state(self) -> tuple[EsViTForPreTraining, EsViTForPreTraining, torch.optim.Optimizer]:
        """Student, teacher, optimizer, for saving and loading. The student never uses the centres; with the teacher's its
        folder is complete.
        """
        for name, center in self.teacher.named_buffers(recurse=False):
            self.student.get_buffer(name).copy_(center)
        return self.student, self.teacher, self.optimizer

    def train_step(self, batches: list[Batch], step: int, monitor: Monitor) -> None:
        """One update of student, teacher and centres from `gradient_accumulation_steps` batches. If a loss or a gradient
        is not finite, on any process, all stay as they were: the flag for it stays on the device.
        """
        plan = self.plan
        epoch = plan.epoch(step)
        set_schedules(self.optimizer, plan.lr[step], plan.weight_decay[step])
        self.switch_mode(epoch)
        self.running_statistics.keep()
        centers = self.center_updates()
        losses: list[torch.Tensor] = []
        for index, batch in enumerate(batches):
            with self.accelerator.accumulate(self.wrapped):
                loss, embeddings = self.losses(batch, epoch, centers)
                losses.append(loss.loss.detach())
                if index == len(batches) - 1:
                    for update in centers.values():
                        update.start()  # of the sum over processes, beside the backward pass
                self.accelerator.backward(loss.loss)
                if self.accelerator.sync_gradients:
                    skip = not_finite(losses, self.prepare_gradients(epoch))
                    apply_gradients(self.optimizer, skip, self.accelerator.scaler)
                    self.optimizer.zero_grad()
            monitor.add(loss, embeddings)
        for update in centers.values():
            update.finish(skip)
        self.running_statistics.restore(skip)
        update_teacher(self.teacher, self.student, plan.momentum[step], skip)
        monitor.add_step(step, batches, skip)

    def switch_mode(self, epoch: int) -> None:
        """Towards the end of the run, the sparse attention of a ViL no longer draws chunks but sees all of them."""
        if self.student.config.vil_mode > 0 and epoch >= self.options.vil_mode_switch * self.options.epochs:
            for network in (self.student, self.teacher):
                network.esvit.encoder.set_mode(0)

    def center_updates(self) -> dict[str, CenterUpdate]:
        """One for each task; every loss of the step still uses the old centres."""
        centers = {"view": self.teacher.view_center, "region": self.teacher.region_center}
        return {
            task: CenterUpdate(center, self.options.center_momentum)
            for task, center in centers.items()
            if center is not None
        }

    def views(self, batch: Batch) -> list[torch.Tensor]:
        """The groups of crops on the device, normalised."""
        groups = [group.to(self.accelerator.device, non_blocking=True) for group in batch.groups]
        if batch.parameters is None:
            return groups
        parameters = [rows.to(self.accelerator.device, non_blocking=True) for rows in batch.parameters]
        return [self.augment(group, rows) for group, rows in zip(groups, parameters, strict=True)]

    def mixed(
        self, groups: list[torch.Tensor], batch: Batch, epoch: int
    ) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """The student's views by mixup or cutmix, and the mixture for the loss; without these options, as they are."""
        options = self.options
        if not options.mixup and not options.cutmix:
            return groups, None
        key = {"seed": options.seed, "epoch": epoch, "position": int(batch.positions[0])}
        mixings = draw_mixings(groups, options.batch_size, **key, mixup=options.mixup, cutmix=options.cutmix)
        return mix(groups, mixings, options.batch_size)

    def losses(self, batch: Batch, epoch: int, centers: dict[str, CenterUpdate]) -> tuple[EsViTLoss, torch.Tensor]:
        """Of one batch, whose teacher rows are added to `centers`; and the teacher's view embeddings `[2 B, D]`."""
        options = self.options
        groups = self.views(batch)
        with torch.no_grad(), self.accelerator.autocast():
            teacher = self.teacher(groups[:1])
        groups, mixing = self.mixed(groups, batch, epoch)
        student = self.wrapped(groups)
        loss = esvit_loss(
            student,
            teacher,
            crop_layout(groups, options.batch_size, self.student.config.region_grid),
            view_center=self.teacher.view_center,
            region_center=self.teacher.region_center,
            teacher_temp=self.plan.teacher_temp[epoch],
            student_temp=options.student_temp,
            region_weight=options.region_weight if options.task == "view+region" else 0.0,
            mixing=mixing,
        )
        for task, update in centers.items():
            update.add(teacher[f"{task}_embeddings"], teacher[f"{task}_prototypes"])
        return loss, teacher.view_embeddings

    def prepare_gradients(self, epoch: int) -> torch.Tensor:
        """Returns the norms of all gradients."""
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.unscale_(self.optimizer)
        norms = clip_gradients(self.student.parameters(), self.options.clip_grad)
        if epoch < self.options.freeze_last_layer:
            drop_last_layer_gradients(self.student)
        return norms
