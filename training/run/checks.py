# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Opens and checks everything that a run needs, before anything long begins.

Collects every problem and reports them in one message.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from transformers import BitImageProcessor
from transformers.initialization import no_init_weights

from modeling_esvit import EsViTConfig
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.images.transform import Transform, make_evaluation_transform
from modeling_esvit.modeling_esvit import describe_preprocessing
from modeling_esvit.storage.paths import describe_file_in_place
from training.data.held_out import SHARE
from training.data.named_data import hold_out_and_say, refuse_output_in_data, split_data_name, split_train_and_test
from training.data.shard_stream import ShardStream, StreamOptions
from training.data.shared_memory import check_shared_memory, check_sockets, describe_free_memory
from training.data.sources import ImageSource, is_image_folder, open_source
from training.data.workers import count_cores, count_workers
from training.evaluation.class_names import number_classes
from training.evaluation.knn import TEMPERATURE, check_knn_options
from training.features.extraction import LabelledImages
from training.learning.compiling import settle_compiling
from training.learning.init_from import check_origin, find_origin
from training.learning.networks import (
    build_accelerator,
    build_config,
    build_networks,
    count_loader_memory,
    make_view_options,
)
from training.learning.plan import Plan, describe_plan, make_plan
from training.learning.precision import Precision, check_agreement, check_precision, choose_precision
from training.monitoring.trackers import check_trackers
from training.options.command import is_for_user
from training.options.errors import OptionError, SharedError
from training.options.pretrain_options import PretrainOptions
from training.run.advice import describe_load
from training.run.idle_options import describe_idle_options
from training.state.checkpoints import Checkpoints, Progress, share_step
from training.state.data_record import DataRecord
from training.state.files import UnwritableCheckpointError, on_main, report_write_errors


SPARE_CHECKPOINTS = 2  # that exist for a while beside those that are kept: the one being written, and `best`


class PreparationError(SharedError, ValueError):
    """Raised when several things are wrong; the message names each."""


class Problems(list[Exception]):
    """Collects what is wrong with a run, to report it in one message."""

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Collects the error of the block, if a user can put it right."""
        try:
            yield
        except (EsViTError, OSError) as error:
            if not is_for_user(error):
                raise
            self.append(error)

    def refuse(self, accelerator: Accelerator) -> None:
        """Reports the problems of all processes, if there are any. Every process calls it.

        Raises:
            PreparationError: There are several, or one of another process. A single problem of the main process, which
                reports it, is raised as it is.
        """
        messages = gather_object([str(problem) for problem in self])
        if accelerator.is_main_process and self and set(messages) == {str(self[0])}:
            raise self[0]
        if messages:
            raise PreparationError("\n".join(dict.fromkeys(messages)))


@dataclass(frozen=True)
class CheckedRun:
    """Holds what a run needs, opened and checked.

    Attributes:
        options: The options, with as many accumulated batches as these processes need for a step of a continued run,
            and with "on" or "off" for `compile`.
        given: The options as they were given, with the precision that was chosen.
        precision: The precision, and who chose it.
        knn_data: Training and test images of the k-NN evaluation during training; empty without one.
        found: The checkpoint to continue from, and its progress; None for a new run.
    """

    options: PretrainOptions
    given: PretrainOptions
    precision: Precision
    accelerator: Accelerator
    source: ImageSource
    plan: Plan
    knn_data: list[ImageSource]
    found: tuple[Path, Progress] | None

    def describe(self, parameters: int) -> str:
        """Says what is trained on what, with the derived values and their formulas."""
        return describe_run(self, parameters)


@dataclass
class Examination:
    """Holds what could be opened of a run, and what is wrong with it.

    Attributes:
        source, plan: None if they could not be made.
        options, given, precision, knn_data, found: See `CheckedRun`.
    """

    options: PretrainOptions
    given: PretrainOptions
    precision: Precision
    accelerator: Accelerator
    problems: Problems
    source: ImageSource | None = None
    plan: Plan | None = None
    knn_data: list[ImageSource] | None = None
    found: tuple[Path, Progress] | None = None


def check_run(options: PretrainOptions) -> CheckedRun:
    """Opens and checks all that a run needs. Every process calls it.

    Raises:
        PreparationError: Several things are wrong.
        EsViTError: One thing is wrong, and this is its error.
    """
    examined = examine_run(options)
    examined.problems.refuse(examined.accelerator)
    return complete(examined)


def complete(examined: Examination) -> CheckedRun:
    """Returns the run of an examination that found no problem."""
    source, plan, knn_data = examined.source, examined.plan, examined.knn_data
    assert source is not None and plan is not None and knn_data is not None
    chosen = (examined.options, examined.given, examined.precision)
    return CheckedRun(*chosen, examined.accelerator, source, plan, knn_data, examined.found)


def examine_run(options: PretrainOptions) -> Examination:
    """Opens and checks all that a run needs, as far as it goes. Every process ends up with what its checks found."""
    problems = Problems()
    precision = Precision("no", "until another one can be used")
    with problems.collect():
        chosen = choose_precision(options)
        check_precision(chosen)
        precision = chosen
    options = replace(options, mixed_precision=precision.name)
    for check in (check_values, check_trackers, check_output, check_disk):
        with problems.collect():
            check(options)
    # A precision or tracker that cannot be used is reported at the end; until then a plain one connects the processes.
    plain = replace(options, mixed_precision="no", tracker=["none"], gradient_accumulation_steps=1)
    accelerator = build_accelerator(plain if problems else options)
    examined = Examination(options, options, precision, accelerator, problems)
    with problems.collect():
        check_agreement(precision)
    with problems.collect():
        examined.options = options = settle_compiling(options, accelerator)
    with problems.collect():
        examined.source = open_training_data(options)
    find_start(examined)
    with problems.collect():
        check_loader_memory(examined)
    with problems.collect():
        examined.knn_data = open_knn_data(options, problems)
    return examined


def find_start(examined: Examination) -> None:
    """Finds the checkpoint or the weights to start from, and makes the plan."""
    problems, options = examined.problems, examined.options
    checkpoints = Checkpoints(options.output, options.keep_checkpoints, examined.accelerator)
    writable = not any(isinstance(problem, UnwritableCheckpointError) for problem in problems)
    # All processes answer each question: some of what follows they do together.
    if all(gather_object([examined.source is not None and not options.problems() and writable])):
        with problems.collect():
            examined.found = checkpoints.latest()
    with problems.collect():
        make_plan_to_continue(examined)
    if examined.found is not None and examined.plan is not None:
        with problems.collect():
            checkpoints.check(*examined.found, examined.options, examined.plan.steps_per_epoch)
    source = examined.source
    if examined.found is not None and all(gather_object([source is not None])):
        assert source is not None
        with problems.collect():
            on_main(examined.accelerator, lambda: DataRecord(options.output).check(source))
    if options.init_from is not None and examined.found is None:
        with problems.collect():
            check_origin(find_origin(options.init_from), build_config(options))


def check_loader_memory(examined: Examination) -> None:
    """Checks that the batches of the workers fit into the shared memory, and find their way.

    Raises:
        OptionError: They do not.
    """
    if examined.plan is not None:
        check_shared_memory(count_loader_memory(examined.options, examined.accelerator.device))
        check_sockets(count_workers(examined.options.workers))


def make_plan_to_continue(examined: Examination) -> None:
    """Makes the plan, for a checkpoint that was found with the images of its steps.

    Raises:
        ResumeError: These processes cannot share them.
        DataOptionError: The data are too few for one step of every process.
    """
    accelerator, options, lanes = examined.accelerator, examined.options, None
    if examined.source is None or options.problems():
        return
    if examined.found is not None:
        progress = examined.found[1]
        lanes = progress.lanes
        examined.options = options = share_step(options, progress, accelerator.num_processes)
        accelerator.gradient_accumulation_steps = options.gradient_accumulation_steps
    examined.plan = make_plan(options, len(examined.source), accelerator.num_processes, lanes)


def open_knn_data(options: PretrainOptions, problems: Problems) -> list[ImageSource]:
    """Opens training and test images of the evaluation during training, which must not fail after hours.

    Raises:
        KnnOptionError, NeighbourCountError, ClassNameError: they cannot be evaluated together.
    """
    if not options.knn_every:
        return []
    opened: list[ImageSource] = []
    learnt_from = options.knn_train or options.training_data
    whole = options.knn_test is None
    named = [split_data_name(learnt_from)] if whole else split_train_and_test(learnt_from, str(options.knn_test))
    for data, split in named:
        with problems.collect():
            # Evaluates a streamed training set as a stream, too.
            own = data == str(options.data)
            columns: dict[str, Any] = {"image_column": options.image_column, "label_column": options.label_column}
            source = open_source(
                data,
                split=split,
                streaming=options.streaming and own,
                config_name=options.config_name if own else None,
                decoding=options.decoding,
                **{} if is_image_folder(data, options.image_column) else columns,
            )
            label_images(source, options)
            opened += hold_out_and_say(learnt_from, source, SHARE) if whole else [source]
    if len(opened) == 2:
        check_knn_options(options.knn_k, TEMPERATURE, len(opened[0]))
        number_classes([source.class_names for source in opened])
    return opened


def describe_run(run: CheckedRun | Examination, parameters: int) -> str:
    """Says what is trained on what, with the derived values and their formulas."""
    options, plan, device = run.options, run.plan, run.accelerator.device
    lines = [
        f"{options.architecture or f'network of {options.init_from}'}, task {options.task}: {parameters:,} "
        "parameters with heads"
    ]
    if plan is not None:
        lines += describe_plan(options, plan)
        if isinstance(run.source, ShardStream):
            lanes = plan.lanes.number
            lines.append(run.source.describe(plan.steps_per_epoch * plan.lanes.images_per_step // lanes, lanes))
    if run.source is not None:
        lines += describe_idle_options(options, isinstance(run.source, ShardStream))
    sources = [run.source, *(run.knn_data or [])]
    lines += [f"not read         = {left_out}" for each in sources if each and (left_out := each.left_out.describe())]
    lines.append(f"device           = {device}")
    lines.append(f"precision        = {run.precision.describe(options, device)}")
    workers, cores = count_workers(options.workers), count_cores()
    lines.append(
        f"workers          = {workers} that decode for each process, whose share of the machine is {cores} cores"
    )
    if device.type == "cpu":
        lines += describe_load(cores)
    if plan is not None and workers:
        needed = count_loader_memory(options, device).describe()
        lines.append(f"shared memory    = {'; '.join([needed, *describe_free_memory()])}")
    return "\n".join(lines)


def check_values(options: PretrainOptions) -> None:
    """Checks the options by themselves.

    Raises:
        OptionError: Values cannot be; it names all of them.
        EsViTArchitectureError, EsViTBackboneError, ViewOptionError: The network or its crops cannot be.
    """
    if problems := options.problems():
        raise OptionError("\n".join(problems))
    build_config(options)
    make_view_options(options)


def find_existing_folder(path: Path) -> Path:
    """Returns the path itself, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def check_output(options: PretrainOptions) -> None:
    """Checks that the folder of the run can be written, and that its pictures are none of the images.

    Raises:
        OptionError: There is a file where a folder is needed.
        DataOptionError: It lies in a folder whose images are read.
        UnwritableCheckpointError: Nothing can be written in `output`, or where it would be made.
    """
    folder = Path(options.output)
    if problem := describe_file_in_place(folder / "checkpoints"):
        raise OptionError(f"output {str(folder)!r}: {problem}.")
    with report_write_errors(folder):
        tempfile.TemporaryFile(dir=find_existing_folder(folder)).close()
    refuse_output_in_data(folder, options.training_data, options.knn_train, options.knn_test)


def check_disk(options: PretrainOptions) -> None:
    """Checks that there is room for the checkpoints that will exist at a time.

    Raises:
        OptionError: There is not.
    """
    existing_folder = find_existing_folder(Path(options.output))
    if options.problems() or not existing_folder.is_dir():
        return
    size = count_checkpoint_bytes(options)
    existing = len(list((Path(options.output) / "checkpoints").glob("step-*")))
    count = max(options.keep_checkpoints + SPARE_CHECKPOINTS - existing, 1)
    free = shutil.disk_usage(existing_folder).free
    if free < count * size:
        raise OptionError(
            f"output {options.output!r}: {count} more checkpoints of {size / 1e9:.2f} GB need "
            f"{count * size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free. Make room, or lower --keep_checkpoints."
        )


def count_checkpoint_bytes(options: PretrainOptions) -> int:
    """Returns the size of student, teacher and two AdamW moments, in float32."""
    with torch.device("meta"), no_init_weights():
        student, _ = build_networks(options, torch.device("meta"))
    return 4 * sum(tensor.nbytes for tensor in student.parameters())


def open_training_data(options: PretrainOptions) -> ImageSource:
    """Opens the images of the run; a run that is continued keeps the commit of its data set.

    Raises:
        DataOptionError: See `open_source`; or `samples_per_epoch` is given for what is no stream.
    """
    source = open_source(
        str(options.data),
        stream=StreamOptions(
            samples_per_epoch=options.samples_per_epoch,
            shuffle_window=options.shuffle_window,
            retry_seconds=options.stream_retry_seconds,
            index_dir=Path(options.tar_index or Path(options.output) / "tar_index"),
            cache=None if options.cache is None else Path(options.cache),
            max_unreadable=options.max_unreadable,
            labels=False,
        ),
        split=options.split,
        revision=DataRecord(options.output).commit(options.data) or options.revision,
        config_name=options.config_name,
        image_column=options.image_column,
        streaming=options.streaming,
        decoding=options.decoding,
    )
    if options.samples_per_epoch is not None and not isinstance(source, ShardStream):
        raise DataOptionError(f"samples_per_epoch is for streams, and {options.data!r} is none: leave it out.")
    return source


def label_images(source: ImageSource, options: PretrainOptions) -> LabelledImages:
    """Returns the images of `source` with their labels, as the evaluation reads them.

    Raises:
        UnlabelledDataError: They have no labels.
    """
    return LabelledImages(source, make_knn_transform(build_config(options)))


def make_knn_transform(config: EsViTConfig) -> Transform:
    """Returns the preprocessing of the evaluation during training: that of a published model."""
    return make_evaluation_transform(BitImageProcessor.from_dict(describe_preprocessing(config)))
