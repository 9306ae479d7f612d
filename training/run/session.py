# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs all that is around the training steps: begin or resume, load batches, log, evaluate, save, push and end."""

import gc
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from modeling_esvit import EsViTForPreTraining
from modeling_esvit.embed.files import format_unreadable
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.wording import show_number
from modeling_esvit.storage.atomic import write_text
from training.data.loader import Batch, iterate
from training.data.sample_check import describe_sample
from training.data.shard_stream import ShardStream
from training.data.unreadable import SkipLog
from training.data.workers import count_workers
from training.evaluation.comparison import CHANCE, conclude, format_comparison
from training.evaluation.knn import evaluate_knn
from training.learning.init_from import initialise
from training.learning.networks import Networks, build_loader, build_start, release_processes
from training.learning.plan import describe_length
from training.learning.running_statistics import list_batch_norms
from training.monitoring.collapse import CollapseWatch
from training.monitoring.monitor import Monitor, StepOutcome
from training.monitoring.next_commands import embed_command, knn_command, make_resume_command, publish_command
from training.monitoring.pictures import draw_views
from training.monitoring.trackers import end_trackers, hide_writer_traceback, start_trackers
from training.options.pretrain_options import WARMUPS, save_options
from training.publishing.hub_push import make_pusher
from training.run.advice import advise
from training.run.checks import CheckedRun, make_knn_transform
from training.state.checkpoints import Checkpoints, Progress
from training.state.data_record import DataRecord
from training.state.files import FolderLock, check_shared, on_main, report_write_errors, save_model_folder
from training.state.interruption import InterruptedRunError, Interruption
from training.state.provenance_record import write_provenances


VIEWS, UNREADABLE = "views.png", "unreadable.txt"  # files of the run's folder


@dataclass(frozen=True)
class PretrainResult:
    """Says what a run has left behind.

    Attributes:
        model: The teacher's model folder, for `AutoModel.from_pretrained`.
        log: The file `log.jsonl`, one JSON object a line.
        last_values: The last value of every name in the log: losses, schedules, k-NN accuracies.
    """

    model: Path
    log: Path
    last_values: dict[str, float | None]


def describe_knn(scores: dict[str, float]) -> str:
    """Says what an evaluation has found, such as "k-NN of 500 images: k10_top1 61.2%, k20_top1 60.8%"."""
    shown = ", ".join(f"{name} {value:.1%}" for name, value in scores.items() if name.endswith("_top1"))
    return f"k-NN of {scores['test_images']:.0f} images: {shown}"


class Session(AbstractContextManager):
    """Holds the folder of a run while it trains. Every process makes one, and calls its methods at the same points.

    Entered, it begins or continues the run: `first_step` is the number of finished steps. Left, it frees the folder.
    """

    def __init__(self, checked: CheckedRun, networks: Networks):
        transformers_logging.disable_progress_bar()  # ours is enough
        self.checked, self.options, self.plan = checked, checked.options, checked.plan
        self.accelerator, self.source = checked.accelerator, checked.source
        self.networks, self.teacher = networks, networks.teacher
        self.folder = Path(self.options.output)
        self.lock = FolderLock(self.folder)
        self.data_record = DataRecord(self.options.output)
        self.checkpoints = Checkpoints(self.options.output, self.options.keep_checkpoints, self.accelerator)
        self.skip_log = SkipLog(len(self.source), self.options.max_unreadable)
        self.hub = make_pusher(self.options.push_to_hub, self.options.output, self.accelerator.is_main_process)

    # -- beginning -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> "Session":
        accelerator, options = self.accelerator, self.options
        accelerator.print(self.checked.describe(sum(p.numel() for p in self.networks.student.parameters())))
        self.first_step, self.checkpoint = self.resume()
        if accelerator.is_main_process:
            advice = () if self.checkpoint else advise(options, len(self.source), self.plan.num_steps)
            for line in (*advice, *describe_sample(self.source, options.max_unreadable)):
                print(line)
        on_main(accelerator, self.save_options)
        on_main(accelerator, lambda: self.data_record.write(options.data, self.source))
        start_trackers(accelerator, options, self.first_step)
        self.monitor = Monitor(
            accelerator,
            options.output,
            log_every=options.log_every,
            images_per_step=self.plan.lanes.images_per_step,
            step=self.first_step,
            last_step=self.plan.last_step,
            epochs=options.epochs,
            watch=self.make_watch(),
            region_grid=self.find_region_grid(),
            max_skipped_steps=options.max_skipped_steps,
            skip_log=self.skip_log,
        )
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self.monitor.close()
        self.lock.release()

    def find_region_grid(self) -> tuple[int, int] | None:
        """Returns the rows and columns of the regions of a global view; None for the view task."""
        if self.options.task == "view":
            return None
        return self.networks.student.config.region_grid(*[self.options.global_crop_size] * 2)

    def resume(self) -> tuple[int, Path | None]:
        """Continues from the newest valid checkpoint, or else starts from `init_from`.

        Returns the number of finished steps, and the checkpoint.
        """
        found = self.checked.found
        if found is None and self.options.init_from is not None:
            self.accelerator.print(initialise(self.options.init_from, *self.state()))
        check_shared(self.accelerator, self.folder)
        on_main(self.accelerator, self.lock.take)
        if found is None:
            return self.plan.first_step, None
        folder, progress = found
        self.checkpoints.load(folder, progress, *self.state())
        self.skip_log.skipped |= progress.unreadable
        self.accelerator.print(f"Continuing from {folder}.")
        for change in (
            self.describe_other_shares(progress),
            describe_length(self.plan, progress.options["epochs"], progress.step),
        ):
            if change:
                self.accelerator.print(change)
        return progress.step, folder

    def describe_other_shares(self, progress: Progress) -> str:
        """Says what differs if other processes, or other batches, share the images of a step; else returns nothing."""
        options, processes = self.options, self.accelerator.num_processes
        shares = (processes, options.batch_size)
        before = (progress.world_size, progress.options["batch_size"])
        if shares == before:
            return ""
        drawn = ["stochastic depth"] * (self.networks.student.config.drop_path_rate > 0)
        drawn += ["partners of mixup and CutMix"] * bool(options.mixup or options.cutmix)
        drawn += ["statistics of BatchNorm"] * bool(list_batch_norms(self.networks.student))
        return (
            f"The {progress.lanes.images_per_step} images of a step are now {show_number(processes, 'processes')} x "
            f"batch_size {options.batch_size} x {options.gradient_accumulation_steps} accumulated (before: "
            f"{show_number(before[0], 'processes')} with {before[1]}). Images and views of each step stay the "
            f"same; {' and '.join(drawn) or 'only rounding'} will differ."
        )

    def state(self) -> tuple[EsViTForPreTraining, EsViTForPreTraining, torch.optim.Optimizer]:
        """Returns student, teacher and optimizer, for saving and loading.

        The student never uses the centres; with the teacher's, its folder is complete.
        """
        student, teacher, _, optimizer = self.networks
        for name, center in teacher.named_buffers(recurse=False):
            student.get_buffer(name).copy_(center)
        return student, teacher, optimizer

    def save_options(self) -> None:
        """Writes the options into the run's folder, and where the data and models came from that they name."""
        with report_write_errors(self.folder):
            save_options(self.checked.given, self.folder / "options.yaml")
            write_provenances(self.folder, asdict(self.checked.given))

    def make_watch(self) -> CollapseWatch:
        """Returns what watches for a collapse, from the end of all warm-ups on."""
        warm_epochs = max(self.options.cut_warmup(name) for name in WARMUPS)
        feature_epoch = self.options.find_feature_epoch()
        steps = None if feature_epoch is None else feature_epoch * self.plan.steps_per_epoch
        return CollapseWatch(self.options.num_prototypes, warm_epochs * self.plan.steps_per_epoch, steps)

    # -- the steps -----------------------------------------------------------------------------------------------------

    @contextmanager
    def steps(self) -> Iterator[Iterator[tuple[int, list[Batch]]]]:
        """Gives the steps that are left, each with its batches. Signals are noted meanwhile.

        Raises:
            InterruptedRunError: A signal asked for it, and a checkpoint is written.
        """
        gc.collect()
        gc.freeze()  # what exists now lives as long as the run: collections during steps need not walk through it
        try:
            # Closed, the loader's workers end at once, however the run ends.
            batches = closing(self.monitor.time_waiting(self.load_batches(self.first_step)))
            with self.hub, hide_writer_traceback(), Interruption() as self.interruption, batches as opened:
                self.make_up_evaluation()
                yield self.group_steps(opened)
        except InterruptedRunError:
            self.monitor.draw(self.options.num_prototypes)
            self.accelerator.print(f"To go on: {make_resume_command(self.options.output, max_steps=0)}")
            self.end_training()
            raise
        finally:
            gc.unfreeze()

    def load_batches(self, step: int) -> Iterator[Batch]:
        """Yields what this process sees from `step` on: `gradient_accumulation_steps` batches a step."""
        loader = build_loader(self.options, self.source, self.plan, self.accelerator, step)
        return iterate(loader, 60 * self.options.process_timeout)

    def group_steps(self, batches: Iterator[Batch]) -> Iterator[tuple[int, list[Batch]]]:
        """Yields each step, counted from 0, with its batches, and counts their unreadable images."""
        for step in range(self.first_step, self.plan.last_step):
            taken = list(itertools.islice(batches, self.options.gradient_accumulation_steps))
            for batch in taken:
                self.skip_log.add(batch.skipped)
            yield step, taken

    def draw_views(self, views: list[torch.Tensor]) -> None:
        """Draws the views of a run's first batch, once."""
        if self.accelerator.is_main_process and (self.checkpoint is None or not (self.folder / VIEWS).exists()):
            self.monitor.save_picture(VIEWS, draw_views(views, self.options.batch_size).save)

    def end_step(self, step: int, outcome: StepOutcome) -> None:
        """Logs the last of `step` steps, and evaluates and saves if it is time.

        Raises:
            InterruptedRunError: A signal asked for it, and the checkpoint is written.
        """
        options, at_end = self.options, step == self.plan.last_step
        is_due = step % (options.save_every or self.plan.steps_per_epoch) == 0
        is_evaluated = self.is_evaluated(step)
        signal = self.interruption.exchange()
        save = at_end or is_due or is_evaluated or bool(signal)
        self.monitor.add(step, outcome, report=save, student_temp=options.student_temp, **self.plan.values(step - 1))
        if not save:
            return
        folder = self.save(step)
        if signal and not at_end:
            raise InterruptedRunError(signal, step)
        if is_evaluated:
            self.log_scores(step, folder, self.evaluate(lambda: self.interruption.stop(step)))
        self.hub.poll()
        if at_end or self.monitor.needs_drawing():
            self.monitor.draw(options.num_prototypes)
        self.monitor.start_window()  # images/s counts training alone

    def save(self, step: int) -> Path:
        """Writes a checkpoint after `step` steps, and returns its folder."""
        numbers = (step, self.plan.world_size, self.plan.steps_per_epoch)
        progress = Progress(*numbers, asdict(self.checked.given), self.plan.lanes, self.skip_log.skipped)
        on_main(self.accelerator, self.list_unreadable)
        return self.checkpoints.save(progress, *self.state())

    def list_unreadable(self) -> None:
        """Lists the images that were left out so far, each with its name and the reason, if there are any."""
        if self.skip_log.skipped:
            with report_write_errors(self.folder):
                write_text(self.folder / UNREADABLE, format_unreadable(dict(sorted(self.skip_log.skipped.items()))))

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def is_evaluated(self, step: int) -> bool:
        """Returns whether the teacher is evaluated after `step` steps: every `knn_every` epochs, and at the end."""
        epoch, rest = divmod(step, self.plan.steps_per_epoch)
        at_end = step == self.plan.last_step
        return bool(self.checked.knn_data) and (at_end or (rest == 0 and epoch % self.options.knn_every == 0))

    def evaluate(self, after_batch: Callable[[], None]) -> dict[str, float]:
        """Returns the k-NN accuracies of the teacher's view features, as published models are evaluated, and counts.

        All processes share the work, in the precision of the run. Its time is shown, and is none of the steps' time.
        """
        started = time.perf_counter()
        scores = self.measure(self.teacher, after_batch)
        self.monitor.say(f"{describe_knn(scores)} in {time.perf_counter() - started:.1f} s, not counted in images/s")
        accuracies_first = sorted(scores.items(), key=lambda score: "_top" not in score[0])
        return {f"knn_{name}": value for name, value in accuracies_first}

    def measure(self, teacher: EsViTForPreTraining, after_batch: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Returns what `evaluate_knn` finds for a teacher, or for what it was at the start."""
        return evaluate_knn(
            teacher.esvit,
            make_knn_transform(teacher.config),
            *self.checked.knn_data,
            k=self.options.knn_k,
            num_workers=count_workers(self.options.workers),
            after_batch=after_batch,
            autocast=self.accelerator.autocast,
        )

    def compare_with_start(self) -> Iterator[str]:
        """Says what the run has gained: yields a table of the teacher, of its start, and of chance.

        The log gets the accuracies of the start, as `start_k10_top1` and so on.
        """
        try:
            network = build_start(self.options, self.accelerator.device)
        except EsViTError as error:  # what the run began from may be gone by now
            yield f"Not compared with its start: {error}"
            return
        start = self.measure(network)
        names = [name for name in start if name.endswith("_top1")]
        self.monitor.write(self.plan.last_step, {f"start_{name}": start[name] for name in names})
        last, title = self.monitor.last_values, {name: f"k-NN top-1, k = {name[1:-5]}" for name in names}
        scores = {
            str(self.folder): {title[name]: float(last[f"knn_{name}"] or 0) for name in names},
            "before training": {title[name]: start[name] for name in names},
            CHANCE: dict.fromkeys(title.values(), start["chance"]),
        }
        yield from format_comparison(scores)
        first = title[names[0]]
        verdict = conclude(
            str(self.folder), {name: row[first] for name, row in scores.items()}, int(start["test_images"])
        )
        yield f"By {first}, {verdict}"

    def make_up_evaluation(self) -> None:
        """Logs the scores of the checkpoint that is continued; evaluates it if the stopped run did not come to it."""
        if self.checkpoint is None:
            return
        step, scores = self.first_step, self.checkpoints.scores(self.checkpoint)
        if scores is None and self.is_evaluated(step):
            scores = self.evaluate(lambda: self.interruption.stop(step))
        if scores is not None:
            self.log_scores(step, self.checkpoint, scores)
            self.monitor.start_window()

    def log_scores(self, step: int, folder: Path, scores: dict[str, float]) -> None:
        """Writes scores beside their checkpoint and into the log, and offers the best teacher to the Hub."""
        self.checkpoints.add_scores(folder, scores)
        self.monitor.write(step, scores)
        self.hub.offer_best()

    # -- the end -------------------------------------------------------------------------------------------------------

    def finish(self) -> PretrainResult:
        """Writes the teacher's folder, and says what comes next."""
        skipped = SkipLog(len(self.source), max_unreadable=1.0)
        skipped.add(self.skip_log.skipped)
        if isinstance(self.source, ShardStream):
            skipped.add(self.source.without_image)
        folder = self.folder / "teacher"
        on_main(self.accelerator, lambda: save_model_folder(self.teacher, folder))
        self.monitor.close()
        left_out = self.source.left_out.describe()
        for line in (skipped.summary(), f"Not read: {left_out}." if left_out else "", *self.describe_next(folder)):
            self.monitor.say(line)
        if self.checked.knn_data and self.plan.last_step == self.plan.num_steps:
            for line in self.compare_with_start():
                self.monitor.say(line)
        self.accelerator.wait_for_everyone()
        self.end_training()
        self.hub.finish()  # other processes need not wait for it
        return PretrainResult(folder, self.monitor.path, self.monitor.last_values)

    def end_training(self) -> None:
        """Ends the trackers, and the exchange between processes.

        Its threads end with the last reference to it. They must not live until the interpreter ends: one that then lets
        go of a tensor of Python aborts the process.
        """
        release_processes(self.networks.wrapped)
        end_trackers(self.accelerator, self.monitor.say)

    def describe_next(self, folder: Path) -> Iterator[str]:
        """Says where the model is, how to use and publish it, and how to go on if the end is not reached."""
        yield f"The model is in {folder}. In Python:"
        yield "    import modeling_esvit"
        yield "    from transformers import AutoModel"
        yield f"    model = AutoModel.from_pretrained({str(folder)!r})"
        yield f"Features of images: {embed_command(self.options.output)}"
        yield f"To compare it with the model that the run began from: {knn_command(self.options)}"
        yield f"To publish it: {publish_command(self.options.output)}"
        if self.plan.last_step < self.plan.num_steps:
            yield (
                f"Stopped after {self.plan.last_step} of {self.plan.num_steps} steps. To go on: "
                f"{make_resume_command(self.options.output, self.options.max_steps)}"
            )
