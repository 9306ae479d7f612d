# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Batches of multi-crop views from a source of images, in an order that depends on nothing but its arguments.

With G = batch size * number of processes, step k of an epoch holds the positions k*G .. (k+1)*G - 1, and process r
their r-th part of one batch size. Of a folder or data set, these are positions in one order of all images; of a stream,
each process fills its own from its own part of the shards (see `shard_stream`). The main process walks that order and
tells the workers what to read; they decode and crop. So the number of workers changes nothing, and a run can begin at
any step.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding import Record, Size, UnreadableImageError, decode
from training.data.shard_stream import ShardStream
from training.data.sources import DataOptionError, ImageSource
from training.state.interruption import outlive_signals
from training.views.draw import CropParameters, ViewKey, ViewOptions, draw_views
from training.views.on_device import photometric_parameters
from training.views.pixels import sufficient_size, write_views


# An unreadable image is replaced by the next one of the epoch that can be read; so many in a row end the run.
MAX_REPLACEMENTS = 16
# A few bad files never end a run, however small the source.
TOLERATED_UNREADABLE = 10


class TooManyUnreadableImagesError(EsViTError, OSError):
    """So many images cannot be read that something else must be wrong."""


class BatchRequest(NamedTuple):
    """What one batch is made of: slot i gets the first readable of `items[i:]`."""

    epoch: int
    positions: range
    items: list[Any]  # of these positions, and MAX_REPLACEMENTS that follow


class Batch(NamedTuple):
    """One batch of one process."""

    groups: list[Tensor]  # [2*B, 3, h, w], then [n_i*B, 3, h_i, w_i] for each set of local crops; crop-major
    positions: Tensor  # int64 [B], in the order of the epoch
    labels: Tensor | None  # int64 [B], -1 for an image without a label; None for a source without labels
    skipped: dict[str, str]  # unreadable images met on the way: name -> message
    parameters: list[Tensor] | None = None  # of the photometric operations, a row a view, if left to the device


class BatchRequests(Sampler[BatchRequest]):
    """The batches of process `rank` in `num_epochs` epochs from `epoch` on, beginning with step `start_step`."""

    def __init__(
        self,
        source: ImageSource,
        *,
        seed: int,
        epoch: int,
        num_epochs: int,
        start_step: int,
        batch_size: int,
        batches_per_step: int,
        rank: int,
        world_size: int,
    ) -> None:
        self.source, self.seed = source, seed
        self.epochs = range(epoch, epoch + num_epochs)
        self.start_step = start_step
        self.batch_size, self.rank, self.world_size = batch_size, rank, world_size
        whole = steps_per_epoch(len(source), batch_size * batches_per_step, world_size)
        self.steps_per_epoch = whole * batches_per_step
        if isinstance(source, ShardStream):
            source.check_processes(world_size)
        if not 0 <= start_step <= self.steps_per_epoch:
            raise DataOptionError(f"start_step {start_step} is not in an epoch of {self.steps_per_epoch} steps.")

    def __len__(self) -> int:
        return self.steps_per_epoch * len(self.epochs) - self.start_step

    def __iter__(self) -> Iterator[BatchRequest]:
        for epoch, items in zip(self.epochs, self._items(), strict=True):
            yield from self._epoch(epoch, items, self.start_step if epoch == self.epochs.start else 0)

    def _epoch(self, epoch: int, items: Iterator[Any], start_step: int) -> Iterator[BatchRequest]:
        first, stride = self._first_and_stride(start_step)
        window: deque[Any] = deque(maxlen=self.batch_size + MAX_REPLACEMENTS)
        taken = 0
        for step in range(start_step, self.steps_per_epoch):
            position = (step * self.world_size + self.rank) * self.batch_size
            end = first + self.batch_size + MAX_REPLACEMENTS
            window.extend(itertools.islice(items, end - taken))  # keeps items first .. end - 1
            taken, first = end, first + stride
            yield BatchRequest(epoch, range(position, position + self.batch_size), list(window))

    def _items(self) -> Iterator[Iterator[Any]]:
        """The items of each epoch, without end; a stream's begin with `start_step`."""
        if isinstance(self.source, ShardStream):
            count, start = self.steps_per_epoch * self.batch_size, self.start_step * self.batch_size
            return self.source.rank_epochs(self.seed, self.epochs, self.rank, count, start)
        source = self.source
        return (_followed_by_its_start(source.items(self.seed, epoch), MAX_REPLACEMENTS) for epoch in self.epochs)

    def _first_and_stride(self, start_step: int) -> tuple[int, int]:
        """The number of the first item of `start_step`, and how far the next step's is."""
        if isinstance(self.source, ShardStream):
            return 0, self.batch_size
        return (start_step * self.world_size + self.rank) * self.batch_size, self.world_size * self.batch_size


def steps_per_epoch(num_images: int, batch_size: int, world_size: int) -> int:
    """Whole global batches in one epoch.

    Raises:
        DataOptionError: there is none.
    """
    global_batch = batch_size * world_size
    if num_images < global_batch:
        raise DataOptionError(
            f"an epoch of {num_images} images has no batch of {batch_size} images * {world_size} processes = "
            f"{global_batch}: use a smaller batch."
        )
    return num_images // global_batch


def _followed_by_its_start(items: Iterator[Any], number: int) -> Iterator[Any]:
    """`items`, then its first `number` items again and again."""
    start = list(itertools.islice(items, number))
    return itertools.chain(start, items, itertools.cycle(start))


class ViewsDataset(Dataset[Batch]):
    """Makes the batch that a `BatchRequest` asks for.

    Raises:
        TooManyUnreadableImagesError: an image and its MAX_REPLACEMENTS successors cannot be read.
    """

    def __init__(self, source: ImageSource, options: ViewOptions, seed: int, augment: bool = True) -> None:
        self.read: Callable[[Any], Record] = source.read  # of a stream, a function without the stream
        self.has_labels, self.options, self.seed, self.augment = source.has_labels, options, seed, augment

    def __getitem__(self, request: BatchRequest) -> Batch:
        batch = len(request.positions)
        groups = empty_groups(batch, self.options, torch.float32 if self.augment else torch.uint8)
        drawn, labels = [], []
        skipped: dict[str, str] = {}
        for slot, position in enumerate(request.positions):
            items = request.items[slot : slot + 1 + MAX_REPLACEMENTS]
            key = ViewKey(self.seed, request.epoch, position)
            record, crops = self._write_first_readable(items, key, views_of(slot, groups, batch), skipped)
            drawn.append(crops)
            labels.append(-1 if record.label is None else record.label)
        return Batch(
            groups=groups,
            positions=torch.tensor(request.positions),
            labels=torch.tensor(labels) if self.has_labels else None,
            skipped=skipped,
            parameters=None if self.augment else self._parameters(drawn),
        )

    def _write_first_readable(
        self, items: list[Any], key: ViewKey, slots: list[Tensor], skipped: dict[str, str]
    ) -> tuple[Record, list[CropParameters]]:
        for item in items:
            record = self.read(item)
            try:
                return record, self._write(record, key, slots)
            except UnreadableImageError as error:
                skipped[record.identity()] = message = str(error)
        raise TooManyUnreadableImagesError(f"{len(items)} images in a row cannot be read; the last one: {message}.")

    def _write(self, record: Record, key: ViewKey, slots: list[Tensor]) -> list[CropParameters]:
        """Boxes are drawn for the size that the file states, before it is decoded."""
        crops: list[CropParameters] = []
        stated: Size = (0, 0)

        def sufficient(size: Size) -> Size:
            nonlocal crops, stated
            stated, crops = size, draw_views(key, size, self.options)
            return sufficient_size(size, crops)

        write_views(decode(record, sufficient), stated, crops, slots)
        return crops

    def _parameters(self, drawn: list[list[CropParameters]]) -> list[Tensor]:
        """One tensor a group, its rows crop-major."""
        by_crop = iter(zip(*drawn, strict=True))
        return [
            photometric_parameters([crop for _ in group for crop in next(by_crop)]) for group in self.options.groups
        ]


def empty_groups(batch: int, options: ViewOptions, dtype: torch.dtype) -> list[Tensor]:
    """Uninitialised `[2*B, 3, h, w]` for the global crops, then `[n_i*B, 3, h_i, w_i]` for each set i of local ones."""
    return [torch.empty(len(group) * batch, 3, *group[0].size, dtype=dtype) for group in options.groups]


def views_of(image: int, groups: list[Tensor], batch: int) -> list[Tensor]:
    """The places of one image's views, in crop order: groups are crop-major, all images of a crop side by side."""
    return [group[row] for group in groups for row in range(image, len(group), batch)]


class SkipLog:
    """The unreadable images of a run, each counted once.

    At most `max_unreadable`, a share of `num_images`, may be unreadable. Up to TOLERATED_UNREADABLE files are let pass
    however small the source, unless `max_unreadable` is 0.
    """

    def __init__(self, num_images: int, max_unreadable: float = 0.01) -> None:
        self.skipped: dict[str, str] = {}
        self._num_images = num_images
        self._limit = max(TOLERATED_UNREADABLE, max_unreadable * num_images) if max_unreadable > 0 else 0

    def add(self, skipped: Mapping[str, str]) -> None:
        """Takes `Batch.skipped` of any process.

        Raises:
            TooManyUnreadableImagesError: they are now more than the limit.
        """
        self.skipped.update(skipped)
        if len(self.skipped) > self._limit:
            raise TooManyUnreadableImagesError(
                f"more than {self._limit:.0f} of {self._num_images} images cannot be read; remove or repair them, or "
                f"raise max_unreadable. {self.summary()}"
            )

    def summary(self, max_names: int = 20) -> str:
        """What was skipped, as text of one line per image; empty if nothing was."""
        if not self.skipped:
            return ""
        lines = [f"{len(self.skipped)} unreadable images were skipped:", *sorted(self.skipped.values())[:max_names]]
        if len(self.skipped) > max_names:
            lines.append(f"... and {len(self.skipped) - max_names} more")
        return "\n  ".join(lines)


def shut_down(batches: Iterator[Batch]) -> None:
    """End the workers of a loader's iterator. torch does so when nothing refers to it any more, but the traceback of an
    error does, to the end of the program, which would then wait for them.
    """
    if isinstance(batches, _MultiProcessingDataLoaderIter):
        batches._shutdown_workers()


def message_of(error: BaseException) -> str:
    """Of an error of a worker, without the traceback that torch puts around its message."""
    text = str(error).strip()
    return text.rpartition(f"{type(error).__name__}: ")[2] if text.startswith("Caught ") else text


def make_loader(
    source: ImageSource,
    options: ViewOptions,
    *,
    seed: int,
    batch_size: int,
    batches_per_step: int = 1,
    epoch: int = 0,
    num_epochs: int = 1,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
    augment: bool = True,
) -> DataLoader[Batch]:
    """The batches of process `rank` from step `start_step` of `epoch` to the end of the last of `num_epochs` epochs.

    Workers live, and prefetch, across the epochs of one loader. The batches are the same for any `num_workers`. An
    epoch is cut to a multiple of `batches_per_step` (gradient accumulation); `start_step` still counts batches. Without
    `augment`, the views are bytes, and the photometric operations are left to `augmentation.augment`.

    Raises:
        DataOptionError: an epoch has no whole global batch, or fewer batches than `start_step`; or a stream has too
            few row groups for so many processes.
    """
    requests = BatchRequests(
        source,
        seed=seed,
        epoch=epoch,
        num_epochs=num_epochs,
        start_step=start_step,
        batch_size=batch_size,
        batches_per_step=batches_per_step,
        rank=rank,
        world_size=world_size,
    )
    return DataLoader(
        ViewsDataset(source, options, seed, augment),
        batch_size=None,  # a request is a whole batch
        sampler=requests,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=outlive_signals,
        generator=torch.Generator(),  # else making an iterator would draw from, and so change, the global one
    )
