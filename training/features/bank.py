# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Keeps features of labelled images on disk: made once for a model and a source, then read by every evaluation.

    bank = make_bank(load_frozen("runs/mine/teacher"), "imagenet:train", open_source("imagenet", split="train"), folder)
    bank.labels          # [N], in memory
    bank.pieces(512)     # [n, C] each, mapped from disk

A bank is a folder of parts, as `embed` writes them. Any number of processes share the work, and one process makes each
part, so the content does not depend on their number. If a call is stopped, the next call makes the missing parts. The
name of the folder is a checksum of all that the features depend on: model weights, processing and images.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor

from modeling_esvit.embed.engine import LoadedImage, check_finite, extract, stack_pixels
from modeling_esvit.embed.files import Features
from modeling_esvit.embed.parts import Parts, cut_rows, make_parts
from modeling_esvit.storage.identity import compute_checksum
from training.data.identity import identify_source
from training.data.sources import FolderSource, ImageSource
from training.data.unreadable import SkipLog
from training.features.extraction import LabelledImages
from training.features.frozen_models import FrozenModel, make_file_name


logger = logging.getLogger(__name__)

PART_SIZE = 4096  # images a part, which is what a stopped call loses at most, for each process


@dataclass
class LabelledFeatures(Features):
    """Holds the features of labelled images.

    labels: `[N]`, the numbers that the source has.
    """

    labels: np.ndarray = field(kw_only=True)

    def arrays(self) -> dict[str, np.ndarray]:
        return super().arrays() | {"labels": self.labels}


class FeatureBank:
    """Reads the features of one source by one model.

    Raises:
        OutputError: a part is missing or damaged.
    """

    def __init__(self, parts: Parts, count: int, class_names: list[str] | None) -> None:
        self.parts, self.count, self.class_names = parts, count, class_names
        labels = {number: self.tensor("labels", number) for number in range(count) if self.has_images(number)}
        self.labels = torch.cat([*labels.values(), torch.empty(0, dtype=torch.int64)])
        self._lengths = {number: len(each) for number, each in labels.items()}

    def __len__(self) -> int:
        return len(self.labels)

    def features(self) -> Tensor:
        """Returns all features, in memory, `[N, C]`."""
        return torch.cat([self.tensor("view", number) for number in self._lengths])

    @cached_property
    def names(self) -> list[str]:
        """Returns the names of the readable images, in the order of the features."""
        return [name for number in range(self.count) for name in json.loads(self.metadata(number)["names"])]

    def collect_unreadable(self, num_images: int) -> SkipLog:
        """Returns which of the source's images were left out, by whatever process or earlier call.

        Raises:
            TooManyUnreadableImagesError: more than `SkipLog` allows.
        """
        skipped = SkipLog(num_images)
        for number in range(self.count):
            skipped.add(json.loads(self.metadata(number)["unreadable"]))
        return skipped

    def pieces(self, size: int) -> Sequence[Tensor]:
        """Returns the features in chunks `[n, C]` of at most `size` images, each mapped from disk when asked for."""
        bounds = [
            (number, start, min(start + size, length))
            for number, length in self._lengths.items()
            for start in range(0, length, size)
        ]
        return MappedChunks(self, bounds)

    def tensor(self, name: str, number: int) -> Tensor:
        with self.parts.open(number, "pt") as file:
            return file.get_tensor(name)

    def has_images(self, number: int) -> bool:
        with self.parts.open(number, "pt") as file:
            return "view" in file.keys()  # noqa: SIM118  (not a mapping)

    def metadata(self, number: int) -> dict[str, str]:
        with self.parts.open(number, "pt") as file:
            return file.metadata()


class MappedChunks(Sequence[Tensor]):
    """Maps rows start .. stop - 1 of a part each, see `FeatureBank.pieces`."""

    def __init__(self, bank: FeatureBank, bounds: list[tuple[int, int, int]]) -> None:
        self._bank, self._bounds = bank, bounds

    def __len__(self) -> int:
        return len(self._bounds)

    def __getitem__(self, index: Any) -> Any:
        number, start, stop = self._bounds[index]
        with self._bank.parts.open(number, "pt") as file:
            return file.get_slice("view")[start:stop]


def name_settings(settings: Any) -> str:
    """Returns a short name that changes with the settings."""
    return compute_checksum(json.dumps(settings, sort_keys=True, default=str))


def show_data(name: str) -> str:
    """Returns the last two parts of a path or name, enough to recognise it."""
    return "/".join(name.rstrip("/").split("/")[-2:])


def describe_choice(source: ImageSource) -> list[Any] | None:
    """Returns which columns hold images and labels, and the names of the classes: a bank keeps labels, too."""
    return None if isinstance(source, FolderSource) else [*source.columns.list_names(), source.class_names]


def make_bank(
    model: FrozenModel,
    data: str,
    source: ImageSource,
    folder: Path,
    *,
    batch_size: int = 64,
    num_threads: int = 4,
    part_size: int = PART_SIZE,
) -> FeatureBank:
    """Returns the bank of `source`, which `data` names, below `folder`. Parts that exist are not made again.

    All processes call it with the same `folder`. A process holds one part in memory, and some
    batches of images. The caller says which images could not be read (`collect_unreadable`), once for all its models.

    Raises:
        UnlabelledDataError, FeatureError, EmptySourceError, TooManyUnreadableImagesError:
            the data or the model cannot be used.
        OutputError: a part is damaged.
    """
    images = LabelledImages(source, model.transform)
    about = {"data": identify_source(source).compute_key(), "labels": describe_choice(source)}
    settings = {**model.settings, **about, "decoding": source.decoding.describe(), "part_size": part_size}
    parts = Parts(folder / f"{make_file_name(data)}-{name_settings(settings)}", settings)
    parts.begin()
    rows = cut_rows(len(images), part_size)
    maker = BankPartMaker(model, images, min(batch_size, part_size), num_threads, SkipLog(len(images)))
    with fail_together():
        name = f"features of {show_data(data)} by {show_data(model.name)}"
        make_parts(parts, rows, maker.read, maker.make_part, expect=maker.expect, description=name)
    bank = FeatureBank(parts, len(rows), source.class_names)
    skipped = bank.collect_unreadable(len(images))  # refuses too many, of earlier calls, too
    if not len(bank):
        raise skipped.make_empty_error()
    return bank


@contextmanager
def fail_together() -> Iterator[None]:
    """Lets all processes leave at the same time, and with the first error that one of them met."""
    met: Exception | None = None
    try:
        yield
    except (ValueError, OSError) as error:
        met = error
    errors = [error for error in gather_object([met]) if error is not None]
    if errors:
        raise errors[0]


@dataclass(frozen=True)
class BankPartMaker:
    """Computes the features of some of many labelled images, and counts those that cannot be read."""

    model: FrozenModel
    images: LabelledImages
    batch_size: int
    num_threads: int
    skipped: SkipLog

    def expect(self, images: int) -> None:
        """Notes how many images this process computes in all, see [`BatchForward.expect`]."""
        self.model.forward.expect(images, self.batch_size)

    def read(self, rows: range) -> Iterator[LoadedImage]:
        return self.images.read(self.images.items(rows), self.batch_size, self.num_threads)

    def make_part(self, images: Iterator[LoadedImage], after_batch: Callable[[int], object]) -> LabelledFeatures:
        """Returns the features of the images.

        Raises:
            FeatureError: a feature is not finite; the message names the first such image.
            TooManyUnreadableImagesError: more images than `SkipLog` allows cannot be read.
        """
        compute = partial(compute_features, self.model)
        found = extract(images, compute, batch_size=self.batch_size, after_batch=after_batch)
        view = found.outputs[0].float().cpu() if found.outputs else torch.empty(0, 0)
        check_finite(view, found.names.__getitem__, self.model.model.dtype)
        self.skipped.add(found.unreadable)
        labels = np.array(found.labels, dtype=np.int64)
        return LabelledFeatures(found.names, view.numpy(), None, found.unreadable, labels=labels)


def compute_features(model: FrozenModel, images: list[LoadedImage]) -> list[Tensor]:
    return [model.features(stack_pixels(images, model.model))]
