# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks, without a GPU, that the training step runs on one: every tensor is there, and what it costs does not grow.

Tensors have no values. The forward pass is on fake CUDA tensors; a backward pass torch refuses there, so that it is
counted on fake CPU tensors that take the path of a GPU.
"""

import pytest
import torch

from tests.benchmarks.count_step import CompiledStep, CountedStep, make_step_options
from tests.helpers.kernel_counter import gpu_kernels
from training.run.estimate import estimate


CPU, GPU = torch.device("cpu"), torch.device("cuda")
# Kernels of the student's and the teacher's forward pass: the most that each recipe may have.
FORWARD = {
    "swin_tiny_w7": 1154,
    "swin_tiny_w14_region": 1039,
    "cvt_tiny_region": 1205,
    "vil_tiny_region": 1594,
    "deit_small_view": 677,
    "resnet50_region": 857,
    "own_images_small": 684,
}
QUICK = ("swin_tiny_w7", "cvt_tiny_region")


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FORWARD]
)
def test_the_forward_pass_on_a_gpu(recipe):
    step = CountedStep(make_step_options(recipe, 4, "bf16"), GPU)
    assert {output.device.type for output in step.outputs} == {"cuda"}
    assert not [operation for counter in step.counters.values() for operation in counter.mixed]
    kernels = sum(step.counters[name].total()[0] for name in ("teacher", "student"))
    assert kernels <= FORWARD[recipe], f"{recipe}: {kernels} kernels"


@pytest.fixture(scope="module")
def step():
    return CountedStep(make_step_options("swin_tiny_w7", 32, "bf16"), CPU)


def test_the_counts_of_a_step_do_not_grow(step):
    """Kernels, and bytes for 32 images; 128 take nearly four times as many."""
    limits = {
        **{"augmentation": (392, 9.7), "teacher": (447, 13.4), "student": (707, 25.5)},
        **{"loss": (168, 17.9), "backward": (855, 46.8)},
    }
    for part in step.parts():
        kernels, gigabytes = limits[part.name]
        assert part.kernels <= kernels and part.bytes <= gigabytes * 1e9, part


def test_the_forward_pass_counts_the_same_on_both_devices(step):
    on_gpu = CountedStep(step.options, GPU)
    for name in ("teacher", "student", "loss"):
        assert on_gpu.counters[name].total() == step.counters[name].total()


@pytest.mark.slow
def test_the_estimate_of_memory_is_the_peak_of_a_step(step):
    """`estimate` counts the same without the augmentation, and here with products of the losses in float32."""
    with gpu_kernels():
        estimated = estimate(step.options, CPU)
    assert step.peak == pytest.approx(estimated.activations + estimated.gradients, rel=0.2)


@pytest.mark.slow  # the compiler fuses what a minute is needed for
def test_the_compiled_step_moves_fewer_bytes_by_fewer_kernels(step):
    compiled = CompiledStep(step.options, CPU).counts
    for part in step.parts():
        kernels, moved = compiled[part.name]
        assert kernels < part.kernels and moved < part.bytes, part.name
    assert sum(kernels for kernels, _ in compiled.values()) <= 1700
    assert sum(moved for _, moved in compiled.values()) <= 83e9
