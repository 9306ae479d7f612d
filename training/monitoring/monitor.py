# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What one sees of a run: progress bar, `log.jsonl`, trackers. Losses are read from the device once a window."""

import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from modeling_esvit.errors import EsViTError
from modeling_esvit.losses import EsViTLoss
from modeling_esvit.storage.atomic import write_text
from training.data.loader import Batch
from training.monitoring.collapse import CollapseWatch, rank_me, spread
from training.monitoring.pictures import draw_curves


Item = TypeVar("Item")

# Batches whose teacher embeddings are kept for the measures of collapse.
EMBEDDING_BATCHES = 32
UNREADABLE_EVERY = 100  # unreadable images from one line about them to the next


def record_of(line: str) -> dict[str, float] | None:
    """What a line of the log says; None if it is damaged."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


class NonFiniteLossError(EsViTError, ArithmeticError):
    """In too many steps in a row the loss or a gradient was infinite or not a number."""


class Monitor:
    """Collects the losses of each step on the device, and once a window of `log_every` steps averages them over steps and
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
        watch: CollapseWatch,
        max_skipped_steps: int = 20,
        unreadable: dict[str, str] | None = None,
    ):
        """`unreadable`: the images that this process could not read so far, and why; it grows with the run."""
        self.accelerator = accelerator
        self.watch = watch
        self.max_skipped_steps = max_skipped_steps
        self.skipped_in_a_row = self.skipped_steps = 0
        self.unreadable = {} if unreadable is None else unreadable
        self.unreadable_told = 0
        self.log_every = log_every
        self.images_per_step = images_per_step
        self.path = Path(output_dir) / "log.jsonl"
        self.drawn = 0.0
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
        """Drop what a stopped run logged after the checkpoint that is now continued, and a line it did not finish. The
        scores of that checkpoint, which has them itself, are written again. Lines that a power cut left unreadable are
        dropped, and counted.
        """
        lines = [line for line in self.path.read_text(errors="replace").splitlines(keepends=True) if line[-1] == "\n"]
        records = [(values, line) for line in lines if (values := record_of(line)) is not None]
        if len(records) < len(lines):
            self.say(f"Warning: {len(lines) - len(records)} lines of {self.path} could not be read, and are dropped.")
        kept = [line for values, line in records if values["step"] < step + ("loss" in values)]
        write_text(self.path, "".join(kept))

    def start_window(self) -> None:
        self.losses: list[torch.Tensor] = []
        self.embeddings: deque[torch.Tensor] = deque(maxlen=EMBEDDING_BATCHES)
        self.skips: list[torch.Tensor] = []
        self.positions: list[tuple[int, list[torch.Tensor]]] = []  # of each step's images, on the host
        self.steps = 0
        self.waited = 0.0
        self.started = time.perf_counter()

    def timed(self, batches: Iterator[Item]) -> Generator[Item, None, None]:
        """The batches, with the time spent waiting for them counted."""
        while True:
            started = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += time.perf_counter() - started
            yield batch

    def add(self, loss: EsViTLoss, embeddings: torch.Tensor) -> None:
        """The losses of one batch, and the teacher's view embeddings `[2 B, D]`; they stay on the device."""
        region = loss.view_loss.new_zeros(()) if loss.region_loss is None else loss.region_loss
        self.losses.append(torch.stack([loss.loss.detach(), loss.view_loss, region, loss.teacher_entropy]))
        self.embeddings.append(embeddings)

    def add_step(self, step: int, batches: list[Batch], skip: torch.Tensor) -> None:
        """Of step `step`, counted from 0: what it was made of, and the flag that says whether it changed nothing."""
        self.skips.append(skip)
        self.positions.append((step, [batch.positions for batch in batches]))

    def step(self, step: int, report: bool, **values: float) -> None:
        """`step` optimizer steps are done. At the end of a window, or if told so: average, check, show, write."""
        self.steps += 1
        self.bar.update()
        if report or step % self.log_every == 0:
            self.report(step, **values)

    def report(self, step: int, **values: float) -> None:
        """Average the window over steps and processes, without batches whose loss is not finite.

        Raises:
            NonFiniteLossError: on all processes alike.
        """
        losses = torch.stack(self.losses)
        finite = losses.isfinite().all(dim=1, keepdim=True)
        unreadable = losses.new_tensor([len(self.unreadable)])
        sums = torch.cat([torch.where(finite, losses, 0).sum(dim=0), finite.sum(dim=0), unreadable])
        *sums, count, unreadable_images = self.accelerator.reduce(sums, reduction="sum").tolist()
        skipped = [index for index, skip in enumerate(torch.stack(self.skips).tolist()) if skip]
        loss, view, region, entropy = (total / count if count else None for total in sums)
        elapsed = time.perf_counter() - self.started
        record: dict[str, float | None] = {
            "loss": loss,
            "view_loss": view,
            "region_loss": region,
            "teacher_entropy": entropy,
            "images_per_second": self.steps * self.images_per_step / elapsed,
            "data_wait": self.waited / elapsed,
            "memory_gb": self.memory() / 1e9,
            **values,
        }
        if view is not None and entropy is not None:
            record |= self.signs_of_collapse(step, view, entropy)
        if skipped:
            self.note_skipped(skipped)
            record["skipped_steps"] = self.skipped_steps
        if unreadable_images:
            self.note_unreadable(int(unreadable_images))
            record["unreadable_images"] = unreadable_images
        self.count_in_a_row(skipped)
        self.start_window()
        shown = "none finite" if loss is None else f"{loss:.4f}, entropy {entropy:.3f}"
        self.bar.set_postfix_str(
            f"loss {shown}, {record['images_per_second']:.1f} images/s, data wait {record['data_wait']:.0%}"
        )
        self.write(step, record)
        if self.skipped_in_a_row >= self.max_skipped_steps:
            raise NonFiniteLossError(
                f"The last {self.skipped_in_a_row} steps up to {step} had no finite loss and gradient, and were "
                "skipped. Checkpoints are good. Start again in another --output_dir with a smaller --lr or "
                "--clip_grad, or with --mixed_precision bf16."
            )

    def signs_of_collapse(self, step: int, view_loss: float, entropy: float) -> dict[str, float]:
        """Measures on this process's teacher embeddings of the window; warns."""
        embeddings = torch.cat(list(self.embeddings)).float().cpu()
        embeddings = embeddings[embeddings.isfinite().all(dim=1)]
        rank = rank_me(embeddings)
        for warning in self.watch.warnings(step, view_loss, rank):
            self.say(warning)
        return {"kl": view_loss - entropy, "embedding_std": spread(embeddings), "embedding_rank": rank}

    def note_skipped(self, skipped: list[int]) -> None:
        """Say which steps of the window changed nothing, and of which images the last of them was made."""
        self.skipped_steps += len(skipped)
        step, positions = self.positions[skipped[-1]]
        images = ", ".join(str(position) for batch in positions for position in batch.tolist())
        self.say(
            f"Warning: {len(skipped)} of the last {self.steps} steps had a loss or gradient that is not finite, and "
            f"changed nothing. The last was step {step + 1}; its images had, on this process, the positions {images} "
            "in the epoch."
        )

    def note_unreadable(self, number: int) -> None:
        """Every process calls it with the same number, that of all. Say so at the first, and then once per hundred."""
        if self.unreadable_told and number < self.unreadable_told + UNREADABLE_EVERY:
            return
        self.unreadable_told = number
        last = [message for message in gather_object([next(reversed(self.unreadable.values()), None)]) if message]
        self.say(f"Warning: {number} unreadable images were left out so far, the last of them: {last[0]}")

    def memory(self) -> int:
        """Bytes of this process: the window's peak on an accelerator; on a CPU, what is resident."""
        if self.accelerator.device.type == "cpu":
            return psutil.Process().memory_info().rss
        peak = torch.accelerator.max_memory_allocated(self.accelerator.device)
        torch.accelerator.reset_peak_memory_stats(self.accelerator.device)
        return peak

    def count_in_a_row(self, skipped: list[int]) -> None:
        """Skipped steps up to the end of the window, with those of windows before."""
        good = [index for index in range(self.steps) if index not in skipped]
        self.skipped_in_a_row = self.steps - 1 - good[-1] if good else self.skipped_in_a_row + self.steps

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """One line of `log.jsonl`, and the same to the trackers."""
        if self.accelerator.is_main_process:
            with self.path.open("a") as log:
                log.write(json.dumps({"step": step, **values}) + "\n")
        self.accelerator.log({name: value for name, value in values.items() if value is not None}, step=step)

    def seconds_since_drawn(self) -> float:
        return time.monotonic() - self.drawn

    def draw(self, num_prototypes: int) -> None:
        """Make the picture of the log, `curves.png`, anew."""
        self.drawn = time.monotonic()
        if self.accelerator.is_main_process:
            self.save_picture("curves.png", lambda picture: draw_curves(self.path, picture, num_prototypes))

    def save_picture(self, name: str, save: Callable[[Path], None]) -> None:
        """A picture beside the log. One that cannot be written, on a full disk say, is no reason to stop."""
        try:
            save(self.path.with_name(name))
        except OSError as error:
            self.say(f"Warning: {name} is not written: {error}")

    def say(self, message: str) -> None:
        """A line above the progress bar, once."""
        if self.accelerator.is_main_process:
            tqdm.write(message)

    def close(self) -> None:
        self.bar.close()
