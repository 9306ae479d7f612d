# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Estimates memory and arithmetic of a training step before it is taken.

The step runs on fake tensors, which have sizes and no values: it takes seconds and almost no memory for any model.
"""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from transformers.initialization import no_init_weights

from modeling_esvit import EsViTForPreTraining, losses
from modeling_esvit.losses import make_crop_layout
from modeling_esvit.swin import PART_TOKENS
from training.learning.networks import build_networks, choose_loss_method, make_view_options
from training.options.pretrain_options import PretrainOptions


PATCH_SIZE = 4  # of the architectures whose blocks work in parts


class Counter(TorchDispatchMode):
    """Counts, as a context: floating point operations (a product and a sum are two), and the bytes of the tensors that
    were made and are still alive, with their peak.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.current = self.peak = 0
        self.alive: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.namespace == "prim":  # a question about a device or layout
            return result
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=result)
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.add(tensor.untyped_storage())
        return result

    def add(self, storage: torch.UntypedStorage) -> None:
        """Counts a storage until it is freed."""
        key, size = id(storage), storage.nbytes()
        if key in self.alive:
            return

        def forget(_: weakref.ref) -> None:
            del self.alive[key]
            self.current -= size

        self.alive[key] = weakref.ref(storage, forget)
        self.current += size
        self.peak = max(self.peak, self.current)


@dataclass(frozen=True)
class Estimate:
    """Holds what a step takes in one process, in bytes.

    Attributes:
        student, teacher: Parameters and buffers.
        gradients, moments: Those of the trainable parameters; AdamW has two moments. DDP exchanges the gradients in
            place.
        activations: Everything else at the peak of the step: activations, the losses' buffers, views.
        parameters: Number of parameters of the student, with heads.
        flops_per_image: Floating point operations of all crops of an image, forward and backward, in student and
            teacher.
    """

    student: int
    teacher: int
    gradients: int
    moments: int
    activations: int
    parameters: int
    flops_per_image: float

    @property
    def total(self) -> int:
        return self.student + self.teacher + self.gradients + self.moments + self.activations

    @property
    def checkpoint(self) -> int:
        """Returns the bytes of one checkpoint on the disk."""
        return self.student + self.teacher + self.moments


def count_bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def count_model_bytes(model: nn.Module) -> int:
    return count_bytes([*model.parameters(), *model.buffers()])


def estimate(options: PretrainOptions, device: torch.device) -> Estimate:
    """Counts what a step takes on `device`.

    It leaves out what torch itself, its kernels and a fragmented heap hold, and what `torch.compile` saves.
    """
    # Built on meta first: fake tensors cannot be copied with a network, because some buffers that count hold a value.
    with torch.device("meta"), no_init_weights():
        networks = build_networks(options, device)
    with FakeTensorMode(allow_non_fake_inputs=True), device:
        student, teacher = (network.to_empty(device=device) for network in networks)
        gradients = count_bytes(p for p in student.parameters() if p.requires_grad)
        batches = choose_batches(options, device)
        counts = [count_step(options, device, student, teacher, batch) for batch in batches]
    peak = counts[-1].peak
    if len(batches) == 2:
        peak += (peak - counts[0].peak) // (batches[1] - batches[0]) * (options.batch_size - batches[1])
    return Estimate(
        student=count_model_bytes(student),
        teacher=count_model_bytes(teacher),
        gradients=gradients,
        moments=2 * gradients,
        activations=max(peak - gradients, 0),
        parameters=sum(p.numel() for p in student.parameters()),
        flops_per_image=counts[-1].flops / batches[-1],
    )


def choose_batches(options: PretrainOptions, device: torch.device) -> tuple[int, ...]:
    """Returns the sizes of one or two batches from which the cost of any batch follows.

    On a CPU, blocks and loss go through a batch in parts, which are thousands of calls for a large batch. Once parts
    are full, each further image adds the same, so two batches of full parts are enough.
    """
    tokens = (options.global_crop_size // (options.patch_size or PATCH_SIZE)) ** 2
    full = max(1, PART_TOKENS // tokens)
    if device.type != "cpu" or options.batch_size <= 2 * full:
        return (options.batch_size,)
    return full, 2 * full


def count_step(
    options: PretrainOptions,
    device: torch.device,
    student: EsViTForPreTraining,
    teacher: EsViTForPreTraining,
    batch: int,
) -> Counter:
    """Runs the forward and backward pass of a training step with `batch` images; gradients are counted, too."""
    counter = Counter()
    precision = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[options.mixed_precision]
    with counter:
        groups = [
            torch.empty(len(group) * batch, 3, *group[0].size, device=device)
            for group in make_view_options(options).groups
        ]
        with torch.autocast(device.type, precision, enabled=options.mixed_precision != "no"):
            with torch.no_grad():
                targets = teacher(groups[:1])
            predictions = student(groups)
        loss = losses.esvit_loss(
            predictions,
            targets,
            make_crop_layout(groups, batch, student.config.region_grid),
            view_center=teacher.view_center,
            region_center=teacher.region_center,
            teacher_temp=options.teacher_temp,
            student_temp=options.student_temp,
            mixing=None,
            places=None,
            method=choose_loss_method(options.mixed_precision, device, compiled=False),
            **options.loss_weights(),
        )
        loss.loss.backward()
    student.zero_grad()
    return counter
