# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that steps without a finite loss or gradient change nothing, and that the host reads nothing for it."""

import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.commands import run_program, torchrun
from tests.helpers.tiny_runs import read_log, read_losses, read_weights, tiny
from training.monitoring.monitor import NonFiniteLossError
from training.options.pretrain_options import parse_options
from training.pretrain import Pretraining


SCALE = 2.0**4
# Narrow heads have bottleneck vectors so short at the start that their gradients overflow float16 at any scale.
WIDE = "--head_hidden_size 256 --lr 0.005"


class PoisonedPretraining(Pretraining):
    """Trains on images of which one pixel at some positions is not a number; in `half` with a gradient scaler."""

    poisoned = range(0)

    def __init__(self, images: Path, output: Path, changes: str = "", half: bool = False):
        super().__init__(parse_options(tiny(images, output, f"{WIDE} {changes}")))
        if half:  # Accelerate has fp16 on GPUs alone; torch has all parts of it on a CPU.
            self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
            self.compute_loss = torch.autocast("cpu", torch.float16)(self.compute_loss)

    def train_step(self, batches, step):
        for batch in batches:
            if batch.positions[0] in self.poisoned:
                batch.groups[-1][0, 0, 0, 0] = float("nan")
        return super().train_step(batches, step)


def state_of(run: Pretraining) -> list[torch.Tensor]:
    """Copies weights, centres, moments and step counts."""
    student, teacher, optimizer = run.session.state()
    moments = [value for state in optimizer.state_dict()["state"].values() for value in state.values()]
    return [value.clone() for value in (*student.state_dict().values(), *teacher.state_dict().values(), *moments)]


@pytest.mark.parametrize(
    "accumulated, precision", [(1, "no"), pytest.param(2, "bf16", marks=pytest.mark.slow), (2, "fp16")]
)
def test_such_a_step_changes_nothing(images, tmp_path, accumulated, precision, capsys):
    half = precision == "fp16"
    changes = f"--batch_size {8 // accumulated} --gradient_accumulation_steps {accumulated}"
    changes += "" if half else f" --mixed_precision {precision}"
    run = PoisonedPretraining(images, tmp_path, f"--max_steps 1 {changes}", half)
    run.run()
    before = state_of(run)
    assert not half or run.accelerator.scaler.get_scale() == SCALE
    run = PoisonedPretraining(images, tmp_path, f"--max_steps 2 {changes}", half)
    run.poisoned = range(8, 16)
    run.run()
    after = state_of(run)
    assert len(before) == len(after) > 100 and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not half or run.accelerator.scaler.get_scale() == SCALE / 2
    record = read_log(tmp_path)[-1]
    assert record["skipped_steps"] == 1 and (record["loss"] is None or accumulated == 2)
    shown = capsys.readouterr().out
    assert "The last was step 2; its images had, on this process, the positions 8, 9, 10, 11, 12, 13, 14, 15" in shown


@pytest.mark.slow
def test_half_precision_trains(images, tmp_path):
    PoisonedPretraining(images, tmp_path / "half", half=True).run()
    PoisonedPretraining(images, tmp_path / "whole").run()
    assert read_losses(tmp_path / "half") == pytest.approx(read_losses(tmp_path / "whole"), rel=2e-3)
    assert read_losses(tmp_path / "half") != read_losses(tmp_path / "whole")


@pytest.mark.parametrize("factor, scale", [(math.inf, SCALE / 2), (1e25, SCALE)])
@pytest.mark.parametrize("half", [False, True])
def test_gradients_that_are_not_finite_or_whose_norm_is_not(images, tmp_path, half, factor, scale):
    """Skips steps with a finite loss, too. A norm that overflows is no fault of the scale, which stays."""
    run = PoisonedPretraining(images, tmp_path, "--max_steps 1", half)
    before = state_of(run)
    run.student.esvit.encoder.norm.weight.register_hook(lambda gradient: gradient * factor)
    run.run()
    after = state_of(run)[: len(before)]  # behind them the moments, which are new
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    record = read_log(tmp_path)[-1]
    assert record["skipped_steps"] == 1 and math.isfinite(record["loss"])
    assert not half or run.accelerator.scaler.get_scale() == scale


class HostReads(TorchDispatchMode):
    """Counts what would make the host wait for a GPU."""

    READS = {"_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2"}

    def __init__(self):
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), kwargs=None):
        if function.overloadpacket.__name__ in self.READS:
            self.seen.append(str(function))
        return function(*arguments, **(kwargs or {}))


@pytest.mark.parametrize("half", [False, True])
def test_the_host_reads_nothing_in_a_step(images, tmp_path, half):
    run = PoisonedPretraining(images, tmp_path, "--max_steps 1", half)
    step, reads = run.train_step, HostReads()

    def watched(*arguments):
        with reads:
            return step(*arguments)

    run.train_step = watched
    run.run()
    assert reads.seen == []
    with reads:
        torch.ones(()).item()
    assert len(reads.seen) == 1  # it does count


@pytest.mark.slow
def test_one_process_stops_the_step_of_all(images, tmp_path):
    """Gives only the second process a NaN, in the second of its three steps."""
    run_program([*torchrun(2), "-m", "tests.end_to_end.test_skipped_steps", images, tmp_path])
    for network in ("student", "teacher"):
        before, skipped, after = (read_weights(tmp_path, step, network) for step in (1, 2, 3))
        assert all(torch.equal(before[name], skipped[name]) for name in before)
        assert not all(torch.equal(after[name], skipped[name]) for name in after)
    assert [record.get("skipped_steps") for record in read_log(tmp_path)] == [None, 1, None]


def test_a_poisoned_image_does_not_stop_the_run(images, tmp_path):
    run = PoisonedPretraining(images, tmp_path, "--log_every 4")
    run.poisoned = range(8, 16)  # a step of each epoch
    run.run()
    assert all(value.isfinite().all() for value in load_file(tmp_path / "teacher" / "model.safetensors").values())
    assert read_log(tmp_path)[-1]["skipped_steps"] == 2
    assert all(loss is not None for loss in read_losses(tmp_path))


def test_too_many_of_them_in_a_row_stop_the_run_and_leave_the_teacher(images, tmp_path):
    """Keeps a student that is not finite itself away from the teacher, too."""
    run = PoisonedPretraining(images, tmp_path, "--log_every 2 --max_skipped_steps 4")
    with torch.no_grad():
        run.student.esvit.encoder.norm.bias.fill_(float("nan"))
    before = [value.clone() for value in run.teacher.state_dict().values()]
    with pytest.raises(NonFiniteLossError, match="The last 4 steps up to 4 had"):
        run.run()
    after = run.teacher.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


if __name__ == "__main__":  # one of the two processes
    CHANGES = "--batch_size 4 --max_steps 3 --save_every 1 --keep_checkpoints 3"
    run = PoisonedPretraining(Path(sys.argv[1]), Path(sys.argv[2]), CHANGES)
    run.poisoned = range(12, 16)
    run.run()
