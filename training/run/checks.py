# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What a run needs from outside, opened and checked before anything long begins. What is wrong is collected, so that all
of it is named together.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from accelerate.utils import gather_object
from huggingface_hub.errors import StrictDataclassError
from transformers import BitImageProcessor
from transformers.initialization import no_init_weights

from modeling_esvit import EsViTArchitectureError, EsViTBackboneError, EsViTConfig
from modeling_esvit.embed.engine import FeatureError
from modeling_esvit.errors import EsViTError
from modeling_esvit.modeling_esvit import evaluation_preprocessor
from training.data.shard_stream import ShardStream
from training.data.sources import DataOptionError, EmptySourceError, ImageSource, open_source
from training.evaluation.command import told_apart
from training.evaluation.knn import TEMPERATURE, NeighbourCountError, check_knn_options
from training.features.extraction import (
    LabelledImages,
    Transform,
    UnlabelledDataError,
    evaluation_transform,
)
from training.learning.init_from import InitialisationError, check_origin, find_origin
from training.learning.networks import (
    PrecisionError,
    ShardingError,
    build_accelerator,
    build_config,
    build_networks,
    check_precision,
    view_options,
)
from training.learning.plan import Plan, describe_plan, make_plan
from training.monitoring.monitor import NonFiniteLossError
from training.monitoring.trackers import check_trackers
from training.options.pretrain_options import OptionError, PretrainOptions
from training.state.checkpoints import Checkpoints, Progress
from training.state.data_record import DataRecord
from training.state.files import RunFolderError, UnwritableCheckpointError, writing
from training.views.draw import ViewOptionError


class PreparationError(EsViTError, ValueError):
    """Several things are wrong; the message names each."""


# What a user can put right; the command prints their message alone.
USER_ERRORS = (
    *(OptionError, ViewOptionError, PrecisionError, ShardingError, RunFolderError, NonFiniteLossError),
    *(EsViTArchitectureError, EsViTBackboneError, StrictDataclassError, InitialisationError),
    *(DataOptionError, EmptySourceError, UnlabelledDataError, NeighbourCountError),
    *(FeatureError, OSError),  # the latter also for missing data, unreadable images, a full disk
)
# Those that every process raises at the same point, so that one can tell it.
RAISED_BY_ALL = (PreparationError, OptionError, RunFolderError, NonFiniteLossError)
SPARE_CHECKPOINTS = 2  # that exist for a while beside those that are kept: the one being written, and `best`


class Preparation:
    """Every process makes one. All end up with the same `problems`.

    Attributes:
        source, plan: None if they could not be made.
        knn_data: bank and test images of the evaluation during training; empty without one.
        found: the checkpoint to continue from, and its progress.
    """

    def __init__(self, options: PretrainOptions):
        self.options = options
        self.problems: list[Exception] = []
        self.source: ImageSource | None = None
        self.plan: Plan | None = None
        self.knn_data: list[ImageSource] = []
        self.found: tuple[Path, Progress] | None = None
        with self.noted():
            refuse_values(options)
        for check in (check_precision, check_trackers, check_output, check_disk):
            with self.noted():
                check(options)
        # What cannot be used is named in the end; until then a plain one tells the processes.
        plain = replace(options, mixed_precision="no", tracker=["none"], gradient_accumulation_steps=1)
        self.accelerator = build_accelerator(plain if self.problems else options)
        with self.noted():
            self.source = open_training_data(options)
        # Each question is for all processes: some of what follows they do together.
        if all(gather_object([self.source is not None and not options.problems()])):
            with self.noted():
                self.prepare_plan()
        writable = not any(isinstance(problem, UnwritableCheckpointError) for problem in self.problems)
        if all(gather_object([self.plan is not None and writable])):
            with self.noted():
                self.find_checkpoint()
        with self.noted():
            if options.init_from is not None and self.found is None:
                origin = find_origin(options.init_from)
                check_origin(origin, build_config(options))
        with self.noted():
            self.open_knn_data()

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        try:
            yield
        except USER_ERRORS as error:
            self.problems.append(error)

    def prepare_plan(self) -> None:
        assert self.source is not None
        self.plan = make_plan(self.options, len(self.source), self.accelerator.num_processes)

    def find_checkpoint(self) -> None:
        assert self.plan is not None
        checkpoints = Checkpoints(self.options.output_dir, self.options.keep_checkpoints, self.accelerator)
        self.found = checkpoints.latest(self.options, self.plan.steps_per_epoch)

    def open_knn_data(self) -> None:
        """Bank and test images of the evaluation during training, which must not fail after hours."""
        options = self.options
        if not options.knn_every or options.knn_test is None:
            return
        training_data = f"{options.data}:{options.split}" if options.split else str(options.data)
        named = told_apart(options.knn_train or training_data, options.knn_test)
        for data, split in named:
            with self.noted():
                # What is trained on as a stream is not downloaded to be evaluated.
                streams = options.streaming and data == str(options.data)
                source = open_source(data, split=split, streaming=streams)
                labelled_images(source, options)
                self.knn_data.append(source)
        if len(self.knn_data) == len(named):
            check_knn_options(options.knn_k, TEMPERATURE, len(self.knn_data[0]))

    def summary(self, parameters: int) -> str:
        """What is trained on what, and the derived values, each with its formula."""
        options = self.options
        return "\n".join(
            [
                f"{options.architecture or f'network of {options.init_from}'}, task {options.task}: {parameters:,} "
                "parameters with heads",
                *(describe_plan(options, self.plan) if self.plan else []),
                *self.stream_summary(),
                f"device           = {self.accelerator.device}, {options.mixed_precision} mixed precision",
            ]
        )

    def stream_summary(self) -> list[str]:
        if not isinstance(self.source, ShardStream) or self.plan is None:
            return []
        world = self.plan.world_size
        return [self.source.describe(self.plan.steps_per_epoch * self.plan.global_batch // world, world)]

    def refuse(self) -> None:
        """Raises:
        PreparationError: there are several, or one of another process. A single one of the main process, which
            tells it, is raised as it is.
        """
        messages = gather_object([str(problem) for problem in self.problems])
        if self.accelerator.is_main_process and self.problems and set(messages) == {str(self.problems[0])}:
            raise self.problems[0]
        if messages:
            raise PreparationError("\n".join(dict.fromkeys(messages)))


def refuse_values(options: PretrainOptions) -> None:
    """Raises:
    OptionError: names every value that cannot be.
    EsViTArchitectureError, EsViTBackboneError, StrictDataclassError, ViewOptionError: as their constructors say.
    """
    if problems := options.problems():
        raise OptionError("\n".join(problems))
    build_config(options)
    view_options(options)


def existing_folder(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def check_output(options: PretrainOptions) -> None:
    """Raises:
    UnwritableCheckpointError: nothing can be written in `output_dir`, or where it would be made.
    """
    with writing(Path(options.output_dir)):
        tempfile.TemporaryFile(dir=existing_folder(Path(options.output_dir))).close()


def check_disk(options: PretrainOptions) -> None:
    """Raises:
    OptionError: there is no room for the checkpoints that will exist at a time.
    """
    if options.problems() or not existing_folder(Path(options.output_dir)).is_dir():
        return
    size = checkpoint_bytes(options)
    existing = len(list((Path(options.output_dir) / "checkpoints").glob("step-*")))
    count = max(options.keep_checkpoints + SPARE_CHECKPOINTS - existing, 1)
    free = shutil.disk_usage(existing_folder(Path(options.output_dir))).free
    if free < count * size:
        raise OptionError(
            f"output_dir {options.output_dir!r}: {count} more checkpoints of {size / 1e9:.2f} GB need "
            f"{count * size / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free. Make room, or lower --keep_checkpoints."
        )


def checkpoint_bytes(options: PretrainOptions) -> int:
    """Student, teacher and two AdamW moments, in float32."""
    with torch.device("meta"), no_init_weights():
        student, _ = build_networks(options, torch.device("meta"))
    return 4 * sum(tensor.nbytes for tensor in student.parameters())


def open_training_data(options: PretrainOptions) -> ImageSource:
    return open_source(
        str(options.data),
        split=options.split,
        revision=DataRecord(options.output_dir).commit(options.data) or options.revision,
        image_column=options.image_column,
        streaming=options.streaming,
        samples_per_epoch=options.samples_per_epoch,
        shuffle_window=options.shuffle_window,
        stream_retry_seconds=options.stream_retry_seconds,
        tar_index=Path(options.tar_index or Path(options.output_dir) / "tar_index"),
        cache=None if options.cache is None else Path(options.cache),
    )


def labelled_images(source: ImageSource, options: PretrainOptions) -> LabelledImages:
    return LabelledImages(source, knn_transform(build_config(options)))


def knn_transform(config: EsViTConfig) -> Transform:
    return evaluation_transform(BitImageProcessor.from_dict(evaluation_preprocessor(config)))
