# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Repeats ten training steps of the original (microsoft/esvit, MIT): losses, weights and centres."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.accelerator import accelerator_path
from tests.helpers.golden import FIXTURES, load, to_pretraining_keys
from tests.helpers.golden_trajectory import begin, golden_batch, golden_options, without_key_bias


@pytest.fixture(scope="module")
def trajectory(tmp_path_factory):
    """Returns the losses of the ten steps, and snapshots of the state after steps 5 and 10."""
    golden = load("golden_trajectory")
    run = begin(golden_options(tmp_path_factory.mktemp("trajectory")))
    losses, snapshots = [], {}
    for step in range(10):
        losses.append(run.train_step([golden_batch(step)], step).values[0]["loss"].item())
        if step + 1 in (5, 10):
            snapshots[step + 1] = {
                "student": {k: v.clone() for k, v in run.student.state_dict().items()},
                "teacher": {k: v.clone() for k, v in run.teacher.state_dict().items()},
            }
    return golden, run, losses, snapshots


def test_schedules_are_exact(trajectory):
    golden, run, _, _ = trajectory
    for name, ours in (("lr", run.plan.lr), ("wd", run.plan.weight_decay), ("momentum", run.plan.momentum)):
        torch.testing.assert_close(torch.from_numpy(ours), golden[name], rtol=1e-15, atol=0)


def test_losses(trajectory):
    _, _, losses, _ = trajectory
    assert_golden_losses(losses)


def assert_golden_losses(losses: list[float]) -> None:
    with safe_open(FIXTURES / "golden_trajectory.safetensors", "pt") as file:
        expected = json.loads(file.metadata()["loss_float64"])
    torch.testing.assert_close(torch.tensor(losses).double(), torch.tensor(expected).double(), rtol=1e-5, atol=0)


def test_losses_on_the_path_of_an_accelerator(tmp_path):
    run = begin(replace(golden_options(tmp_path), attn_implementation="sdpa"))
    with accelerator_path():
        assert_golden_losses(
            [run.train_step([golden_batch(step)], step).values[0]["loss"].item() for step in range(10)]
        )


class Bfloat16Products(TorchDispatchMode):
    """Rounds the factors of every float32 matrix product to bf16, and adds up in float32, as `medium` does with AMX."""

    FACTORS = {
        **{torch.ops.aten.mm.default: (0, 1), torch.ops.aten.bmm.default: (0, 1)},
        **{torch.ops.aten.addmm.default: (1, 2), torch.ops.aten.baddbmm.default: (1, 2)},
    }

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        rounded = list(args)
        for index in self.FACTORS.get(func, ()):
            rounded[index] = args[index].bfloat16().to(args[index].dtype)
        return func(*rounded, **(kwargs or {}))


def test_what_bf16_products_change(trajectory, tmp_path):
    """Prints how far `--matmul_precision medium` leads away on a CPU with AMX, played where there is none.

    The learning rate is that of 256 images, for two, so that ten steps go far.
    """
    golden, _, losses, _ = trajectory
    run = begin(golden_options(tmp_path))
    with Bfloat16Products():
        rounded = [run.train_step([golden_batch(step)], step).values[0]["loss"].item() for step in range(10)]
    differences = [abs(a - b) / b for a, b in zip(rounded, losses, strict=True)]
    print("bf16 products change the losses by", " ".join(f"{difference:.1e}" for difference in differences))
    assert 1e-4 < differences[0] < 5e-3 and max(differences) < 0.05


@pytest.mark.parametrize("step", [5, 10])
def test_weights_and_centers(trajectory, step):
    golden, _, _, snapshots = trajectory
    compared = 0
    for name, expected in golden.items():
        if not name.startswith(f"step{step}."):
            continue
        name = name.removeprefix(f"step{step}.")
        if name in ("center", "center_grid"):
            ours = snapshots[step]["teacher"]["view_center" if name == "center" else "region_center"]
            torch.testing.assert_close(ours, expected[0], rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
        else:
            network, key = name.split(".", 1)
            ours = snapshots[step][network][next(iter(to_pretraining_keys({key: expected})))]
            torch.testing.assert_close(
                without_key_bias(key, ours),
                without_key_bias(key, expected),
                rtol=0,
                atol=1e-5,
                msg=lambda m, n=name: f"{n}: {m}",
            )
        compared += 1
    assert compared == 32
