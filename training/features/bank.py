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

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm.auto import tqdm

from modeling_esvit.embed.engine import LoadedImage, check_finite, extract, stack_pixels
from modeling_esvit.embed.files import Features, OutputError, Parts
from training.data.identity import identify_source
from training.data.sources import DatasetSource, EmptySourceError, FolderSource, ImageSource
from training.data.unreadable import SkipLog
from training.features.extraction import LabelledImages
from training.features.frozen_models import FrozenModel, file_name


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

    def pieces(self, size: int) -> Sequence[Tensor]:
        """Returns the features in chunks `[n, C]` of at most `size` images, each mapped from disk when asked for."""
        bounds = [
            (number, start, min(start + size, length))
            for number, length in self._lengths.items()
            for start in range(0, length, size)
        ]
        return MappedChunks(self, bounds)

    def tensor(self, name: str, number: int) -> Tensor:
        with self.open_part(number) as file:
            return file.get_tensor(name)

    def has_images(self, number: int) -> bool:
        with self.open_part(number) as file:
            return "view" in file.keys()  # noqa: SIM118  (not a mapping)

    def metadata(self, number: int) -> dict[str, str]:
        with self.open_part(number) as file:
            return file.metadata()

    @contextmanager
    def open_part(self, number: int) -> Iterator[Any]:
        path = self.parts.path(number)
        try:
            with safe_open(path, framework="pt") as file:
                yield file
        except (SafetensorError, OSError) as error:
            raise OutputError(f"{path} is damaged ({error}). Delete it; the same call makes it anew.") from error


class MappedChunks(Sequence[Tensor]):
    """Maps rows start .. stop - 1 of a part each, see `FeatureBank.pieces`."""

    def __init__(self, bank: FeatureBank, bounds: list[tuple[int, int, int]]) -> None:
        self._bank, self._bounds = bank, bounds

    def __len__(self) -> int:
        return len(self._bounds)

    def __getitem__(self, index: Any) -> Any:
        number, start, stop = self._bounds[index]
        with self._bank.open_part(number) as file:
            return file.get_slice("view")[start:stop]


def source_identity(source: ImageSource) -> dict[str, Any]:
    """Returns what tells the images of a source from others: as for runs, and for files also their sizes and times."""
    found = identify_source(source)
    if isinstance(source, FolderSource):
        stats = [os.stat(source.root / path) for path in source.paths()]
        found["files"] = checksum([[stat.st_size, stat.st_mtime_ns] for stat in stats])
    if isinstance(source, DatasetSource):
        found["fingerprint"] = source.fingerprint
    return found


def checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


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
    batches of images.

    Raises:
        UnlabelledDataError, FeatureError, EmptySourceError, TooManyUnreadableImagesError:
            the data or the model cannot be used.
        OutputError: a part is damaged.
    """
    state, images = PartialState(), LabelledImages(source, model.transform)
    settings = {**model.settings, "data": checksum(source_identity(source)), "part_size": part_size}
    parts = Parts(folder / f"{file_name(data)}-{checksum(settings)}", settings)
    with state.main_process_first():
        parts.begin()
    count = -(-len(images) // part_size)
    options = {"batch_size": batch_size, "num_threads": num_threads, "part_size": part_size}
    with fail_together():
        extract_parts(model, images, parts, find_own_parts(count, parts, state), **options)
    bank = FeatureBank(parts, count, source.class_names)
    log_unreadable(bank, images)
    if not len(bank):
        raise EmptySourceError(f"none of the {len(images)} images can be read, {images.name(0)} to begin with.")
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


def find_own_parts(count: int, parts: Parts, state: PartialState) -> list[int]:
    """Returns the missing parts that this process makes: neighbours, so that a stream is read in one go."""
    share = -(-count // state.num_processes)
    mine = range(count)[state.process_index * share : (state.process_index + 1) * share]
    return [number for number in mine if not parts.is_done(number)]


def find_spans(numbers: list[int]) -> Iterator[range]:
    """Yields increasing numbers as ranges of neighbours."""
    for _, group in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        neighbours = [number for _, number in group]
        yield range(neighbours[0], neighbours[-1] + 1)


def extract_parts(
    model: FrozenModel,
    images: LabelledImages,
    parts: Parts,
    numbers: list[int],
    *,
    batch_size: int,
    num_threads: int,
    part_size: int,
) -> None:
    skipped = SkipLog(len(images))
    rows = {number: range(number * part_size, min((number + 1) * part_size, len(images))) for number in numbers}
    model.forward.expect(sum(map(len, rows.values())), min(batch_size, part_size))
    with tqdm(
        desc=f"features of {parts.folder.stem}",
        total=sum(map(len, rows.values())),
        unit="image",
        disable=not PartialState().is_main_process,
        dynamic_ncols=True,
    ) as bar:
        for span in find_spans(numbers):
            items = images.items(range(rows[span[0]].start, rows[span[-1]].stop))
            loaded = images.read(items, batch_size, num_threads)
            for number in span:
                part = extract_part(model, islice(loaded, len(rows[number])), batch_size, bar.update)
                skipped.add(part.unreadable)
                parts.write(number, part)


def extract_part(
    model: FrozenModel, images: Iterator[LoadedImage], batch_size: int, after_batch: Callable[[int], object]
) -> LabelledFeatures:
    """Returns the features of the images of a part.

    Raises:
        FeatureError: a feature is not finite; the message names the first such image.
    """
    compute = partial(compute_features, model)
    found = extract(images, compute, batch_size=batch_size, after_batch=after_batch)
    view = found.outputs[0].float().cpu() if found.outputs else torch.empty(0, 0)
    check_finite(view, found.names.__getitem__, model.model.dtype)
    labels = np.array(found.labels, dtype=np.int64)
    return LabelledFeatures(found.names, view.numpy(), None, found.unreadable, labels=labels)


def compute_features(model: FrozenModel, images: list[LoadedImage]) -> list[Tensor]:
    return [model.features(stack_pixels(images, model.model))]


def log_unreadable(bank: FeatureBank, images: LabelledImages) -> None:
    """Logs which images were left out, by whatever process or earlier call.

    Raises:
        TooManyUnreadableImagesError: more than `SkipLog` allows.
    """
    skipped = SkipLog(len(images))
    for number in range(bank.count):
        skipped.add(json.loads(bank.metadata(number)["unreadable"]))
    if skipped.skipped and PartialState().is_main_process:
        logger.warning(skipped.summary())
