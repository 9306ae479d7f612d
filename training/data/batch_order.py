# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Deals the images of an epoch to batches and processes.

The sources decide the order of an epoch: `sources.epoch_order` for folders and data sets, `shard_stream` for streams.
With G = batch size * number of processes, batch k of an epoch holds the positions k*G .. (k+1)*G - 1, and process r
their r-th part of one batch size. Of a folder or data set, these are positions in one order of all images; of a stream,
each process fills its own from its own part of the shards (see `shard_stream`). The order depends on nothing but the
arguments, so the number of workers changes nothing, and a run can begin at any step.
"""

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch.utils.data import Sampler

from training.data.shard_stream import ShardStream
from training.data.sources import DataOptionError, ImageSource


# An unreadable image is replaced by the next one of the epoch that can be read; so many in a row end the run.
MAX_REPLACEMENTS = 16


@dataclass(frozen=True)
class BatchOrder:
    """Says which images make the batches of one process, from which batch on.

    Attributes:
        batch_size: Images of one batch of one process.
        batches_per_step: Batches of one optimizer step (gradient accumulation); an epoch is a whole number of steps.
        epoch, num_epochs: The first epoch, and how many follow each other.
        start_batch: The first batch, counted in batches from the start of the first epoch.
        rank, world_size: Number of this process, and of all.
    """

    seed: int
    batch_size: int
    batches_per_step: int = 1
    epoch: int = 0
    num_epochs: int = 1
    start_batch: int = 0
    rank: int = 0
    world_size: int = 1


class BatchRequest(NamedTuple):
    """Names the images of one batch: slot i gets the first readable one of `items[i:]`."""

    epoch: int
    positions: range
    items: list[Any]  # of these positions, and MAX_REPLACEMENTS that follow


class BatchRequests(Sampler[BatchRequest]):
    """Yields the batches of one process in their order.

    Raises:
        DataOptionError: An epoch has no whole global batch, or fewer batches than `start_batch`; or a stream has too
            few row groups for so many processes.
    """

    def __init__(self, source: ImageSource, order: BatchOrder) -> None:
        self.source, self.order = source, order
        self.epochs = range(order.epoch, order.epoch + order.num_epochs)
        whole = count_steps(len(source), order.batch_size * order.batches_per_step, order.world_size)
        self.batches_per_epoch = whole * order.batches_per_step
        if isinstance(source, ShardStream):
            source.check_processes(order.world_size)
        if not 0 <= order.start_batch <= self.batches_per_epoch:
            raise DataOptionError(
                f"start_batch {order.start_batch} is not in an epoch of {self.batches_per_epoch} batches."
            )

    def __len__(self) -> int:
        return self.batches_per_epoch * len(self.epochs) - self.order.start_batch

    def __iter__(self) -> Iterator[BatchRequest]:
        for epoch, items in zip(self.epochs, self._items(), strict=True):
            yield from self._epoch(epoch, items, self.order.start_batch if epoch == self.epochs.start else 0)

    def _epoch(self, epoch: int, items: Iterator[Any], start_batch: int) -> Iterator[BatchRequest]:
        first, stride = self._first_and_stride(start_batch)
        window: deque[Any] = deque(maxlen=self.order.batch_size + MAX_REPLACEMENTS)
        taken = 0
        for step in range(start_batch, self.batches_per_epoch):
            position = (step * self.order.world_size + self.order.rank) * self.order.batch_size
            end = first + self.order.batch_size + MAX_REPLACEMENTS
            window.extend(itertools.islice(items, end - taken))  # keeps items first .. end - 1
            taken, first = end, first + stride
            yield BatchRequest(epoch, range(position, position + self.order.batch_size), list(window))

    def _items(self) -> Iterator[Iterator[Any]]:
        """Yields the items of each epoch, without end; those of a stream begin with `start_batch`."""
        if isinstance(self.source, ShardStream):
            count, start = (
                self.batches_per_epoch * self.order.batch_size,
                self.order.start_batch * self.order.batch_size,
            )
            return self.source.rank_epochs(self.order.seed, self.epochs, self.order.rank, count, start)
        source = self.source
        return (_append_start(source.items(self.order.seed, epoch), MAX_REPLACEMENTS) for epoch in self.epochs)

    def _first_and_stride(self, start_batch: int) -> tuple[int, int]:
        """Returns the number of the first item of `start_batch`, and the distance to that of the next step."""
        if isinstance(self.source, ShardStream):
            return 0, self.order.batch_size
        return (
            start_batch * self.order.world_size + self.order.rank
        ) * self.order.batch_size, self.order.world_size * self.order.batch_size


def count_steps(num_images: int, batch_size: int, world_size: int) -> int:
    """Returns the number of steps in an epoch: its whole global batches.

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


def _append_start(items: Iterator[Any], number: int) -> Iterator[Any]:
    """Yields `items`, then its first `number` items again and again."""
    start = list(itertools.islice(items, number))
    return itertools.chain(start, items, itertools.cycle(start))
