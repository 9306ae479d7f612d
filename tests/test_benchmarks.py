# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The plain references of the benchmarks compute what we compute, and the tables are made from what was measured."""

import sys
from pathlib import Path

import pytest
import torch


sys.path.append(str(Path(__file__).parent / "benchmarks"))

import bench_loss
import bench_step


SMALL = {
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [1, 2],
    "num_prototypes": 64,
    "head_hidden_size": 16,
    "head_bottleneck_size": 8,
    "drop_path_rate": 0.0,
}


@pytest.mark.parametrize("compared", [{}, {"gradient_checkpointing": True}, {"attn_implementation": "eager"}])
def test_the_reference_step_equals_ours(compared, monkeypatch):
    check_step(monkeypatch, sizes=(64, 40), **SMALL, **compared)


def test_the_reference_step_of_a_vil_equals_ours(monkeypatch):
    """Sparse attention is the dense form of it."""
    small = {"architecture": "vil-tiny", "image_size": 64, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    check_step(monkeypatch, sizes=(64, 32), **{**SMALL, **small})


def check_step(monkeypatch, **options) -> None:
    # Clipping, decay and a moving average that show: with a recipe's own values they change less than the limit.
    strong = {"clip_grad": 1e-3, "weight_decay": 1.0, "lr": 1e-3, "momentum_teacher": 0.9}
    monkeypatch.setattr(bench_step, "SCHEDULES", {**bench_step.SCHEDULES, **strong})
    differences = bench_step.largest_difference(2, steps=3, numbers=(2, 3), **options)
    assert differences["loss"] < 1e-5 and differences["teacher"] < 1e-5 and differences["student"] < 1e-4


def test_the_plain_loss_equals_ours():
    ours, plain = (setup(2, 300)() for setup in (bench_loss.our_loss, bench_loss.plain_loss))
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)
