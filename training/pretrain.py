# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Pretrain an EsViT backbone on images without labels (arXiv 2106.09785).

    python training/pretrain.py --data photographs/ --output_dir runs/mine
    accelerate launch training/pretrain.py --recipe swin_tiny_w7 --data imagenet/train
    torchrun --nproc_per_node 8 training/pretrain.py --data imagenet/train --mixed_precision bf16
    python training/pretrain.py --help

A student sees all crops of an image, a teacher the two global ones. The student learns to give each of its views, and
each region of each view, the distribution over prototypes that the teacher gives to the other views; the teacher is a
moving average of the student. The same command again continues a stopped run. The result is the model folder
OUTPUT_DIR/teacher.
"""

import contextlib
import gc
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from accelerate.utils import gather_object
from transformers.utils import logging as transformers_logging

from training.data.loader import Batch, shut_down
from training.data.unreadable import SkipLog
from training.evaluation.knn import evaluate_knn
from training.learning.init_from import initialise
from training.learning.learner import Learner
from training.learning.networks import build_loader
from training.monitoring.collapse import CollapseWatch
from training.monitoring.monitor import Monitor
from training.monitoring.next_commands import publish_command, resume_command
from training.monitoring.out_of_memory import is_out_of_memory, out_of_memory_advice
from training.monitoring.pictures import views_picture
from training.monitoring.trackers import start_trackers
from training.options.pretrain_options import PretrainOptions, read_options, save_options
from training.publishing.hub_push import push_to_hub
from training.run.checks import RAISED_BY_ALL, USER_ERRORS, Preparation, PreparationError, knn_transform
from training.run.dry_run import dry_run
from training.run.last_words import leave_word_to_main, message_of
from training.state.checkpoints import Checkpoints, Progress
from training.state.data_record import DataRecord
from training.state.files import FolderLock, check_shared, on_main, save_model_folder, writing
from training.state.interruption import EXIT_CODE, InterruptedRunError, Interruption


DRAW_EVERY = 60  # seconds between two pictures of the curves, at the least


class Pretraining:
    """A run: its data, its learner, and what is reported, evaluated and saved along the way."""

    def __init__(self, options: PretrainOptions):
        transformers_logging.disable_progress_bar()  # ours is enough
        self.options = options
        self.preparation = preparation = Preparation(options)
        preparation.refuse()
        assert preparation.source is not None and preparation.plan is not None
        self.accelerator, self.source, self.plan = preparation.accelerator, preparation.source, preparation.plan
        self.knn_data = preparation.knn_data
        self.lock = FolderLock(Path(options.output_dir))
        self.data_record = DataRecord(options.output_dir)
        self.learner = Learner(options, self.plan, self.accelerator)
        self.checkpoints = Checkpoints(options.output_dir, options.keep_checkpoints, self.accelerator)
        # Each process counts what it meets: in other epochs it meets other images, in the end all.
        self.skip_log = SkipLog(len(self.source), options.max_unreadable)
        self.hub = push_to_hub(options.push_to_hub, options.output_dir, self.accelerator.is_main_process)

    def evaluate(self, after_batch: Callable[[], None]) -> dict[str, float]:
        """k-NN accuracy of the teacher's view features, as published models are evaluated. Accuracies come first."""
        teacher, k = self.learner.teacher, self.options.knn_k
        scores = evaluate_knn(
            teacher.esvit, knn_transform(teacher.config), *self.knn_data, k=k, after_batch=after_batch
        )
        accuracies_first = sorted(scores.items(), key=lambda score: "_top" not in score[0])
        return {f"knn_{name}": value for name, value in accuracies_first}

    def resume(self) -> tuple[int, Path | None]:
        """Continue from the newest valid checkpoint, or else start from `init_from`. Returns the number of finished steps,
        and the checkpoint.
        """
        found = self.preparation.found
        if found is None and self.options.init_from is not None:
            self.accelerator.print(initialise(self.options.init_from, *self.learner.state()))
        check_shared(self.accelerator, Path(self.options.output_dir))
        on_main(self.accelerator, self.lock.take)
        if found is None:
            return 0, None
        folder, progress = found
        self.data_record.check(self.source)
        self.checkpoints.load(folder, *self.learner.state())
        self.accelerator.print(f"Continuing from {folder}.")
        return progress.step, folder

    def batches(self, step: int) -> Iterator[Batch]:
        """What this process sees from `step` on: `gradient_accumulation_steps` batches a step."""
        batches = iter(build_loader(self.options, self.source, self.plan, self.accelerator, step))
        try:
            yield from batches
        finally:
            shut_down(batches)

    def save(self, step: int) -> Path:
        progress = Progress(step, self.plan.world_size, self.plan.steps_per_epoch, asdict(self.options))
        return self.checkpoints.save(progress, *self.learner.state())

    def run(self) -> Path:
        """Train to the end. Returns the teacher's model folder."""
        options, accelerator = self.options, self.accelerator
        accelerator.print(self.preparation.summary(sum(p.numel() for p in self.learner.student.parameters())))
        step, checkpoint = self.resume()
        on_main(accelerator, self.save_options)
        on_main(accelerator, lambda: self.data_record.write(options.data, self.source))
        start_trackers(accelerator, options, step)
        monitor = Monitor(
            accelerator,
            options.output_dir,
            log_every=options.log_every,
            images_per_step=self.plan.global_batch,
            step=step,
            last_step=self.plan.last_step,
            watch=self.collapse_watch(),
            max_skipped_steps=options.max_skipped_steps,
            unreadable=self.skip_log.skipped,
        )
        try:
            with self.hub:
                self.train(step, checkpoint, monitor)
        except InterruptedRunError:
            monitor.draw(options.num_prototypes)
            accelerator.print(f"To go on: {resume_command(options.output_dir, max_steps=0)}")
            accelerator.end_training()
            raise
        finally:
            monitor.close()
        return self.finish(monitor)

    def train(self, first: int, checkpoint: Path | None, monitor: Monitor) -> None:
        """The steps from `first` on, which `checkpoint` holds.

        Raises:
            InterruptedRunError: a signal asked for it, and a checkpoint is written.
        """
        gc.collect()
        gc.freeze()  # what exists now lives as long as the run: collections during steps need not walk through it
        # Closed, the loader's workers end at once, however the run ends.
        with Interruption() as interruption, contextlib.closing(monitor.timed(self.batches(first))) as batches:
            if checkpoint is not None:
                self.make_up_evaluation(checkpoint, first, monitor, interruption)
            for step in range(first, self.plan.last_step):
                taken = list(self.take_step(batches))
                if step == first:
                    self.draw_views(taken[0], monitor)
                self.learner.train_step(taken, step, monitor)
                self.after_step(step + 1, monitor, interruption)

    def save_options(self) -> None:
        folder = Path(self.options.output_dir)
        with writing(folder):
            save_options(self.options, folder / "options.yaml")

    def draw_views(self, batch: Batch, monitor: Monitor) -> None:
        if self.accelerator.is_main_process:
            picture = views_picture(self.learner.views(batch), self.options.batch_size)
            monitor.save_picture("views.png", picture.save)

    def collapse_watch(self) -> CollapseWatch:
        warm_epochs = max(self.options.warmup_epochs, self.options.warmup_teacher_temp_epochs)
        return CollapseWatch(self.options.num_prototypes, warm_epochs * self.plan.steps_per_epoch)

    def take_step(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches of one step, their unreadable images noted."""
        for batch in itertools.islice(batches, self.options.gradient_accumulation_steps):
            self.skip_log.add(batch.skipped)
            yield batch

    def is_evaluated(self, step: int) -> bool:
        """Whether the teacher is evaluated after `step` steps: every `knn_every` epochs, and at the end."""
        epoch, rest = divmod(step, self.plan.steps_per_epoch)
        at_end = step == self.plan.last_step
        return bool(self.knn_data) and (at_end or (rest == 0 and epoch % self.options.knn_every == 0))

    def make_up_evaluation(self, checkpoint: Path, step: int, monitor: Monitor, interruption: Interruption) -> None:
        """Evaluate the checkpoint that is continued, if a stopped run had to and did not come to it; log its scores."""
        scores = self.checkpoints.scores(checkpoint)
        if scores is None and self.is_evaluated(step):
            scores = self.evaluate(lambda: interruption.stop(step))
        if scores is not None:
            self.checkpoints.add_scores(checkpoint, scores)
            monitor.write(step, scores)
            self.hub.offer_best()
            monitor.start_window()

    def after_step(self, step: int, monitor: Monitor, interruption: Interruption) -> None:
        """Report, evaluate and save where `step`, the number of finished steps, says so.

        Raises:
            InterruptedRunError: a signal asked for it, and the checkpoint is written.
        """
        options = self.options
        at_end = step == self.plan.last_step
        evaluate = self.is_evaluated(step)
        due = step % (options.save_every or self.plan.steps_per_epoch) == 0
        signal = interruption.exchange()
        save = at_end or due or evaluate or bool(signal)
        monitor.step(
            step,
            report=save,
            student_temp=options.student_temp,
            **self.plan.values(step - 1),
        )
        if not save:
            return
        folder = self.save(step)
        if signal and not at_end:
            raise InterruptedRunError(signal, step)
        if evaluate:
            scores = self.evaluate(lambda: interruption.stop(step))
            self.checkpoints.add_scores(folder, scores)
            monitor.write(step, scores)
            self.hub.offer_best()
        self.hub.poll()
        if at_end or monitor.seconds_since_drawn() > DRAW_EVERY:
            monitor.draw(self.options.num_prototypes)
        monitor.start_window()  # images/s counts training alone

    def finish(self, monitor: Monitor) -> Path:
        """Write the teacher's folder, and say what was skipped and, if the end is not reached, how to go on."""
        skipped = SkipLog(len(self.source), max_unreadable=1.0)
        for names in gather_object([self.skip_log.skipped]):
            skipped.add(names)
        folder = Path(self.options.output_dir) / "teacher"
        on_main(self.accelerator, lambda: save_model_folder(self.learner.teacher, folder))
        if self.accelerator.is_main_process:
            monitor.say(skipped.summary())
            monitor.say(f"The model is in {folder}: AutoModel.from_pretrained({str(folder)!r})")
            monitor.say(f"To publish it: {publish_command(self.options.output_dir)}")
            if self.plan.last_step < self.plan.num_steps:
                monitor.say(
                    f"Stopped after {self.plan.last_step} of {self.plan.num_steps} steps. To go on: "
                    f"{resume_command(self.options.output_dir, self.options.max_steps)}"
                )
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        self.hub.finish()  # other processes need not wait for it
        return folder


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        options = read_options(arguments)
        if options.dry_run:
            dry_run(options)
        else:
            Pretraining(options).run()
    except InterruptedRunError as error:
        leave_word_to_main(EXIT_CODE)
        print(error, file=sys.stderr)
        sys.exit(EXIT_CODE)
    except (PreparationError, *USER_ERRORS) as error:
        if isinstance(error, RAISED_BY_ALL):
            leave_word_to_main(1)
        sys.exit(f"error: {message_of(error)}")
    except RuntimeError as error:  # a CPU's memory has no type of its own
        if not is_out_of_memory(error):
            raise
        sys.exit(f"error: {error}\n{out_of_memory_advice(read_options(arguments))}")


if __name__ == "__main__":
    main()
