# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What one sees of a run: progress bar, `log.jsonl`, trackers. Losses are read from the device once a window."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from modeling_esvit.region_matching import EsViTLoss


Item = TypeVar("Item")


class NonFiniteLossError(ArithmeticError):
    """The loss is infinite or not a number."""


class Monitor:
    """
    Collects the losses of each step on the device, and once a window of `log_every` steps averages them over steps and
    processes, shows and writes them. Every process calls it; the main one shows and writes.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        output_dir: str,
        *,
        log_every: int,
        images_per_step: int,
        step: int,
        last_step: int,
    ):
        self.accelerator = accelerator
        self.log_every = log_every
        self.images_per_step = images_per_step
        self.path = Path(output_dir) / "log.jsonl"
        if accelerator.is_main_process and self.path.exists():
            self.forget_after(step)
        self.bar = tqdm(
            total=last_step,
            initial=step,
            unit="step",
            desc="pretrain",
            disable=not accelerator.is_main_process,
            dynamic_ncols=True,
        )
        self.start_window()

    def forget_after(self, step: int) -> None:
        """Drop what a killed run logged after the checkpoint that is now continued, and a line it did not finish."""
        lines = self.path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(kept))
        partial.replace(self.path)

    def start_window(self) -> None:
        self.losses: list[torch.Tensor] = []
        self.steps = 0
        self.waited = 0.0
        self.started = time.perf_counter()

    def timed(self, batches: Iterator[Item]) -> Iterator[Item]:
        """The batches, with the time spent waiting for them counted."""
        while True:
            started = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += time.perf_counter() - started
            yield batch

    def add(self, loss: EsViTLoss) -> None:
        """The losses of one batch; they stay on the device."""
        region = loss.view_loss.new_zeros(()) if loss.region_loss is None else loss.region_loss
        self.losses.append(torch.stack([loss.loss.detach(), loss.view_loss, region, loss.teacher_entropy]))

    def step(self, step: int, report: bool, **values: float) -> None:
        """`step` optimizer steps are done. At the end of a window, or if told so: average, check, show, write."""
        self.steps += 1
        self.bar.update()
        if report or step % self.log_every == 0:
            self.report(step, **values)

    def report(self, step: int, **values: float) -> None:
        """
        Average the window over steps and processes.

        Raises:
            NonFiniteLossError: on all processes alike.
        """
        mean = self.accelerator.reduce(torch.stack(self.losses).mean(dim=0), reduction="mean")
        loss, view, region, entropy = mean.tolist()
        elapsed = time.perf_counter() - self.started
        record = {
            "step": step,
            "loss": loss,
            "view_loss": view,
            "region_loss": region,
            "teacher_entropy": entropy,
            "images_per_second": self.steps * self.images_per_step / elapsed,
            "data_wait": self.waited / elapsed,
            **values,
        }
        first = step - self.steps + 1
        self.start_window()
        self.bar.set_postfix_str(
            f"loss {loss:.4f}, entropy {entropy:.3f}, {record['images_per_second']:.1f} images/s, "
            f"data wait {record['data_wait']:.0%}"
        )
        self.write(record)
        if not torch.isfinite(mean).all():
            raise NonFiniteLossError(
                f"The loss of steps {first} to {step} is {loss}. The checkpoints from before are good. Start "
                "again in another --output_dir with a smaller --lr or --clip_grad, or with --mixed_precision bf16."
            )

    def write(self, record: dict[str, float]) -> None:
        """One line of `log.jsonl`, and the same to the trackers."""
        if self.accelerator.is_main_process:
            with self.path.open("a") as log:
                log.write(json.dumps(record) + "\n")
        step = int(record["step"])
        self.accelerator.log({name: value for name, value in record.items() if name != "step"}, step=step)

    def say(self, message: str) -> None:
        """A line above the progress bar, once."""
        if self.accelerator.is_main_process:
            tqdm.write(message)

    def close(self) -> None:
        self.bar.close()
