# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows a run while it trains: a bar, or plain lines outside a terminal, `log.jsonl`, trackers.

Values are read from the device once a window.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil
import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from modeling_esvit.embed.progress import is_watched
from modeling_esvit.images.wording import show_number
from modeling_esvit.storage.atomic import append_text, write_text
from modeling_esvit.storage.run_log import LOG, format_record, read_records
from training.data.unreadable import SkipLog
from training.figures.curves import draw_curves
from training.monitoring.collapse import MIN_RANK, CollapseWatch, compute_rank_me, spread
from training.monitoring.compilation import CompilationClock
from training.monitoring.region_matches import average_matches
from training.monitoring.trackers import outlive_tracker
from training.options.errors import SharedError


Item = TypeVar("Item")

EMBEDDING_BATCHES = 32  # batches whose teacher embeddings are kept for the measures of collapse
UNREADABLE_EVERY = 100  # further unreadable images after which the next line about them is printed
DRAW_EVERY = 60  # seconds between two pictures of the curves, at least


class NonFiniteLossError(SharedError, ArithmeticError):
    """Raised when the loss or a gradient was infinite or not a number in too many steps in a row."""


class StepOutcome(NamedTuple):
    """Says what one training step did. All but the positions stays on the device.

    Attributes:
        values: For each batch, the values to be logged by name, each 0-dim; their names are those of the log.
        embeddings: For each batch, the teacher's view embeddings `[2 B, D]`.
        positions: For each batch, the positions `[B]` of its images in the epoch, on the host.
        skip: 1 if a loss or gradient was not finite and the step changed nothing, else 0; 0-dim.
        matches: For each batch, what `count_matches` returns; empty if it was not measured.
    """

    values: list[dict[str, torch.Tensor]]
    embeddings: list[torch.Tensor]
    positions: list[torch.Tensor]
    skip: torch.Tensor
    matches: list[torch.Tensor]


class Monitor:
    """Collects the values of each step on the device, and logs their averages once a window of `log_every` steps.

    The averages are over the steps of the window and over processes. Every process calls it; the main one writes.
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
        epochs: int,
        watch: CollapseWatch,
        region_grid: tuple[int, int] | None = None,
        max_skipped_steps: int = 20,
        skip_log: SkipLog | None = None,
    ):
        """Continues the log after `step` steps.

        Args:
            images_per_step: Images that all processes take for a step.
            epochs: Those of the whole run.
            region_grid: Rows and columns of the regions of a global view; None for the view task.
            skip_log: The images that could not be read so far, and why; it grows with the run.
        """
        self.accelerator = accelerator
        self.watch, self.region_grid = watch, region_grid
        self.max_skipped_steps = max_skipped_steps
        self.skipped_in_a_row = self.skipped_steps = 0
        self.skip_log = SkipLog(0) if skip_log is None else skip_log
        self.unreadable_told = 0
        self.log_every, self.epochs = log_every, epochs
        self.images_per_step = images_per_step
        self.path = Path(output_dir) / LOG
        self.unwritten = ""  # lines of the log
        self.drawn = 0.0
        self.last_values: dict[str, float | None] = {}  # the newest value of every name in the log
        if accelerator.is_main_process and self.path.exists():
            self.forget_after(step)
        self.bar = tqdm(
            total=last_step,
            initial=step,
            unit="step",
            desc="pretrain",
            disable=not (accelerator.is_main_process and is_watched()),
            dynamic_ncols=True,
        )
        self.last_step = last_step
        self.compilation = CompilationClock(self.show_compilation)
        self.start_window()

    def forget_after(self, step: int) -> None:
        """Drops what a stopped run logged after the checkpoint that is continued now, and a line it did not finish.

        The scores of that checkpoint lie beside it, and are written again. Damaged lines are dropped and counted.
        """
        records, damaged = read_records(self.path)
        if damaged:
            self.say(f"Warning: dropped {show_number(damaged, 'damaged lines')} of {self.path}.")
        kept = [values for values in records if values["step"] < step + ("loss" in values)]
        write_text(self.path, "".join(map(format_record, kept)))
        for values in kept:
            self.last_values |= values

    def start_window(self) -> None:
        """Forgets the steps so far, and starts the clock for images per second."""
        self.values: list[dict[str, torch.Tensor]] = []  # of each batch
        self.embeddings: deque[torch.Tensor] = deque(maxlen=EMBEDDING_BATCHES)
        self.skips: list[torch.Tensor] = []
        self.matches: list[torch.Tensor] = []
        self.positions: list[tuple[int, list[torch.Tensor]]] = []  # each step's number and its images
        self.waited = 0.0
        self.compilation.take()
        self.started = time.perf_counter()

    def show_compilation(self) -> None:
        """Says on the progress bar that this step takes long because torch compiles."""
        self.bar.set_postfix_str("compiling, which can take minutes")

    def time_waiting(self, batches: Iterator[Item]) -> Generator[Item, None, None]:
        """Yields the batches, and counts the time spent waiting for them."""
        while True:
            started = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += time.perf_counter() - started
            yield batch

    def add(self, step: int, outcome: StepOutcome, report: bool, **values: float) -> None:
        """Takes the outcome of the last of `step` steps. Reports, with `values`, at the end of a window or if told to.

        Raises:
            NonFiniteLossError: See `report`.
        """
        self.values += outcome.values
        self.embeddings += outcome.embeddings
        self.skips.append(outcome.skip)
        self.matches += outcome.matches
        self.positions.append((step, outcome.positions))
        self.bar.update()
        if report or step % self.log_every == 0:
            self.report(step, **values)

    @property
    def steps(self) -> int:
        """Returns the number of steps in the window."""
        return len(self.skips)

    def report(self, step: int, **values: float) -> None:
        """Averages the window, checks it, shows it and writes it.

        Raises:
            NonFiniteLossError: Too many steps in a row were skipped; on all processes alike.
        """
        averages, unreadable = self.average()
        if unreadable:
            self.skip_log.share()
            self.name_unreadable()
        skipped = [index for index, skip in enumerate(torch.stack(self.skips).tolist()) if skip]
        record: dict[str, float | None] = {**averages, **self.measure_speed(), **values}
        matches = self.measure_matches()
        if averages["loss"] is not None:
            record |= {**matches, **self.find_signs_of_collapse(step, averages, matches)}
        if skipped:
            self.name_skipped(skipped)
            record["skipped_steps"] = self.skipped_steps
        if self.skip_log.skipped:
            record["unreadable_images"] = float(len(self.skip_log.skipped))
        self.count_in_a_row(skipped)
        self.show(step, record)
        self.start_window()
        self.write(step, record)
        if self.skipped_in_a_row >= self.max_skipped_steps:
            raise NonFiniteLossError(
                f"The last {self.skipped_in_a_row} steps up to {step} had no finite loss and gradient, and were "
                "skipped. The checkpoints are good. Start again in another --output with a smaller --lr or "
                "--clip_grad, or with --mixed_precision bf16."
            )

    def average(self) -> tuple[dict[str, float | None], int]:
        """Averages every value over the batches of the window and over processes.

        Batches with a value that is not finite are left out; if none remains, the averages are None. Also returns the
        number of unreadable images that single processes have met since the last report.
        """
        rows = torch.stack([torch.stack([*values.values()]) for values in self.values])
        finite = rows.isfinite().all(dim=1, keepdim=True)
        unreadable = rows.new_tensor([len(self.skip_log.unshared)])
        sums = torch.cat([torch.where(finite, rows, 0).sum(dim=0), finite.sum(dim=0), unreadable])
        *totals, count, unreadable_images = self.accelerator.reduce(sums, reduction="sum").tolist()
        averages = {name: total / count if count else None for name, total in zip(self.values[0], totals, strict=True)}
        return averages, int(unreadable_images)

    def measure_speed(self) -> dict[str, float]:
        """Returns the speed of the window, the share of its time spent waiting for data, and its memory.

        The seconds of compilation, if there are any, are a value of their own, and no part of the window's time.
        """
        compiled = self.compilation.take()
        elapsed = time.perf_counter() - self.started - compiled
        speed = {
            "images_per_second": self.steps * self.images_per_step / elapsed,
            "data_wait": self.waited / elapsed,
            "memory_gb": self.measure_memory() / 1e9,
        }
        return speed | ({"compile_seconds": compiled} if compiled else {})

    def show(self, step: int, record: Mapping[str, Any]) -> None:
        """Puts the record on the progress bar, or prints it as a line if there is none."""
        shown = self.describe(record)
        self.bar.set_postfix_str(shown)
        if self.bar.disable:
            self.say(f"step {step}/{self.last_step}, {shown}")

    def describe(self, record: Mapping[str, Any]) -> str:
        """Says what is worth watching: first the divergence of the student from the teacher (kl), which falls as the
        student learns. The loss is kl and the teacher's entropy, and may rise.
        """
        loss = "no finite loss" if record["loss"] is None else f"kl {record['kl']:.3f}, loss {record['loss']:.3f}"
        compiled = f", compiled in {record['compile_seconds']:.0f} s" if "compile_seconds" in record else ""
        return (
            f"epoch {record['epoch'] + 1:.0f}/{self.epochs}: {loss}, {record['images_per_second']:.1f} images/s, "
            f"data wait {record['data_wait']:.0%}{compiled}"
        )

    def measure_matches(self) -> dict[str, float | None]:
        """Returns how many regions of all processes found their own place, if that was measured in the window."""
        if not self.matches or self.region_grid is None:
            return {}
        counts = self.accelerator.reduce(torch.stack(self.matches).sum(dim=0), reduction="sum")
        return average_matches(counts, self.region_grid)

    def find_signs_of_collapse(
        self, step: int, averages: Mapping[str, Any], matches: Mapping[str, float | None]
    ) -> dict[str, float]:
        """Measures this process's teacher embeddings of the window, and warns of a collapse."""
        embeddings = torch.cat(list(self.embeddings)).float().cpu()
        embeddings = embeddings[embeddings.isfinite().all(dim=1)]
        rank = compute_rank_me(embeddings)
        for warning in self.watch.find_warnings(step, averages["view_loss"], rank, matches):
            self.say(warning)
        kl = averages["view_loss"] - averages["teacher_entropy"]
        return {"kl": kl, "embedding_std": spread(embeddings), "embedding_rank": rank}

    def name_skipped(self, skipped: list[int]) -> None:
        """Says how many steps of the window changed nothing, and which images the last of them had."""
        self.skipped_steps += len(skipped)
        step, positions = self.positions[skipped[-1]]
        images = ", ".join(str(position) for batch in positions for position in batch.tolist())
        self.say(
            f"Warning: {len(skipped)} of the last {self.steps} steps had a loss or gradient that is not finite, and "
            f"changed nothing. The last was step {step}; its images had, on this process, the positions {images} "
            "in the epoch."
        )

    def name_unreadable(self) -> None:
        """Says how many images could not be read, at the first one and then once per hundred."""
        number = len(self.skip_log.skipped)
        if self.unreadable_told and number < self.unreadable_told + UNREADABLE_EVERY:
            return
        self.unreadable_told = number
        last = next(reversed(self.skip_log.skipped.values()))
        self.say(f"Warning: left out {show_number(number, 'unreadable images')} so far, the last: {last}")

    def measure_memory(self) -> int:
        """Returns bytes of this process: the window's peak on an accelerator, the resident memory on a CPU."""
        if self.accelerator.device.type == "cpu":
            return psutil.Process().memory_info().rss
        peak = torch.accelerator.max_memory_allocated(self.accelerator.device)
        torch.accelerator.reset_peak_memory_stats(self.accelerator.device)
        return peak

    def count_in_a_row(self, skipped: list[int]) -> None:
        """Counts the skipped steps since the last good one, also over windows."""
        good = [index for index in range(self.steps) if index not in skipped]
        self.skipped_in_a_row = self.steps - 1 - good[-1] if good else self.skipped_in_a_row + self.steps

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Writes one line to `log.jsonl`, and the same to the trackers."""
        self.last_values |= {"step": step, **values}
        if self.accelerator.is_main_process:
            self.unwritten += format_record({"step": step, **values})
            self.write_lines()
        with outlive_tracker(self.say):
            self.accelerator.log({name: value for name, value in values.items() if value is not None}, step=step)

    def write_lines(self) -> None:
        """Writes the lines that are not in the log yet. A disk that fails once is no reason to stop the run."""
        try:
            append_text(self.path, self.unwritten)
        except OSError as error:
            self.say(f"Warning: {self.path} is not written ({error}); its lines come with the next one.")
        else:
            self.unwritten = ""

    def needs_drawing(self) -> bool:
        """Returns whether the picture of the curves is older than `DRAW_EVERY`."""
        return time.monotonic() - self.drawn > DRAW_EVERY

    def draw(self, num_prototypes: int) -> None:
        """Draws the curves of the log anew, as `curves.png`."""
        self.drawn = time.monotonic()
        if self.accelerator.is_main_process:
            self.save_picture("curves.png", lambda picture: draw_curves(self.path, picture, num_prototypes, MIN_RANK))

    def save_picture(self, name: str, save: Callable[[Path], None]) -> None:
        """Saves a picture beside the log. A full disk, or no matplotlib, only is a line, and does not stop the run."""
        try:
            save(self.path.with_name(name))
        except (OSError, ImportError) as error:
            self.say(f"Warning: {name} is not written: {error}")

    def say(self, message: str) -> None:
        """Prints a line above the progress bar, on the main process."""
        if self.accelerator.is_main_process:
            tqdm.write(message)

    def close(self) -> None:
        """Ends the progress bar; a second call changes nothing."""
        self.bar.close()
        self.compilation.close()
