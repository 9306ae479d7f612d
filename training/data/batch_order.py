# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Deals the images of an epoch to batches and processes.

The sources decide the order of an epoch: `sources.shuffle_epoch` for folders and data sets, `shard_stream` for streams.
With G = batch size * number of processes, batch k of an epoch holds the positions k*G .. (k+1)*G - 1, and process r
their r-th part of one batch size. Of a folder or data set, these are positions in one order of all images. A stream is
read in *lanes*, one for each process that began the run: see `Lanes`. The order depends on nothing but the arguments,
so the number of workers changes nothing, and a run can begin at any step, with any number of processes.
"""

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch.utils.data import Sampler

from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.images.wording import show_number
from training.data.shard_stream import ShardStream
from training.data.sources import ImageSource


# An unreadable image is replaced by the next one of the epoch that can be read; so many in a row end the run.
MAX_REPLACEMENTS = 16


@dataclass(frozen=True)
class Lanes:
    """Says how a stream is dealt out: a lane for each process that began the run, which alone reads it.

    Whoever continues the run with other processes, or batches of another size, reads the same lanes, so that each
    position of an epoch still has its image. Processes may then share a lane, or one may read several.

    Attributes:
        number: Processes that began the run.
        batch_size: Images of one of their batches, which are neighbours in the lane.
        batches_per_step: Batches of each of them that made a step.
    """

    number: int
    batch_size: int
    batches_per_step: int = 1

    @property
    def images_per_step(self) -> int:
        return self.number * self.batch_size * self.batches_per_step

    def locate(self, positions: range) -> "Iterator[LanePart]":
        """Yields where the images at these positions of an epoch are, in their order."""
        start = positions.start
        while start < positions.stop:
            batch, offset = divmod(start, self.batch_size)
            round_number, lane = divmod(batch, self.number)
            length = min(self.batch_size - offset, positions.stop - start)
            yield LanePart(lane, round_number * self.batch_size + offset, length)
            start += length


class LanePart(NamedTuple):
    """Names `length` neighbouring items of a lane."""

    lane: int
    first: int
    length: int


@dataclass(frozen=True)
class BatchOrder:
    """Says which images make the batches of one process, from which batch on.

    Attributes:
        batch_size: Images of one batch of one process.
        batches_per_step: Batches of one optimizer step (gradient accumulation); an epoch is a whole number of steps.
        epoch, num_epochs: The first epoch, and how many follow each other.
        start_batch: The first batch, counted in batches from the start of the first epoch.
        rank, world_size: Number of this process, and of all.
        stream_lanes: The lanes of a stream, for as many images a step; None for one of each process.
    """

    seed: int
    batch_size: int
    batches_per_step: int = 1
    epoch: int = 0
    num_epochs: int = 1
    start_batch: int = 0
    rank: int = 0
    world_size: int = 1
    stream_lanes: Lanes | None = None

    @property
    def lanes(self) -> Lanes:
        return self.stream_lanes or Lanes(self.world_size, self.batch_size, self.batches_per_step)

    def positions(self, batch: int) -> range:
        """Returns the positions in the epoch of one batch of this process."""
        first = (batch * self.world_size + self.rank) * self.batch_size
        return range(first, first + self.batch_size)


class BatchRequest(NamedTuple):
    """Names the images of one batch."""

    epoch: int
    positions: range
    candidates: list[list[Any]]  # for each position: its item, and MAX_REPLACEMENTS that follow it


class Cursor:
    """Reads the items of a lane once, and hands out each with those that follow it."""

    def __init__(self, items: Iterator[Any], first: int) -> None:
        """Starts before the first of `items`, which is number `first` of the lane."""
        self.items, self.first = items, first
        self.window: deque[Any] = deque()  # the items from number `first` on that were read already

    def take(self, first: int, count: int) -> list[list[Any]]:
        """Returns the candidates of the items `first` to `first + count - 1`. Numbers never fall from call to call."""
        for _ in range(first - self.first):
            if self.window:
                self.window.popleft()
            else:
                next(self.items)
        self.first = first
        self.window.extend(itertools.islice(self.items, count + MAX_REPLACEMENTS - len(self.window)))
        items = list(self.window)
        return [items[slot : slot + 1 + MAX_REPLACEMENTS] for slot in range(count)]


class BatchRequests(Sampler[BatchRequest]):
    """Yields the batches of one process in their order.

    Raises:
        DataOptionError: An epoch has no whole global batch, or fewer batches than `start_batch`; or a stream has too
            few row groups for so many processes.
    """

    def __init__(self, source: ImageSource, order: BatchOrder) -> None:
        self.source, self.order = source, order
        self.epochs = range(order.epoch, order.epoch + order.num_epochs)
        self.steps = count_steps(len(source), order.batch_size * order.batches_per_step, order.world_size)
        self.batches_per_epoch = self.steps * order.batches_per_step
        if isinstance(source, ShardStream):
            source.check_processes(order.lanes.number)
        if not 0 <= order.start_batch <= self.batches_per_epoch:
            raise DataOptionError(
                f"start_batch {order.start_batch} is not in an epoch of {self.batches_per_epoch} batches."
            )

    def __len__(self) -> int:
        return self.batches_per_epoch * len(self.epochs) - self.order.start_batch

    def __iter__(self) -> Iterator[BatchRequest]:
        for epoch, cursors in zip(self.epochs, self._cursors(), strict=True):
            first = self.order.start_batch if epoch == self.epochs.start else 0
            for batch in range(first, self.batches_per_epoch):
                positions = self.order.positions(batch)
                parts = [cursors[part.lane].take(part.first, part.length) for part in self._locate(positions)]
                yield BatchRequest(epoch, positions, list(itertools.chain.from_iterable(parts)))

    def _locate(self, positions: range) -> Iterator[LanePart]:
        """Yields where the images at these positions are; a source that is no stream is one lane."""
        if isinstance(self.source, ShardStream):
            return self.order.lanes.locate(positions)
        return iter([LanePart(0, positions.start, len(positions))])

    def _cursors(self) -> Iterator[dict[int, Cursor]]:
        """Yields a cursor for each lane of this process, epoch by epoch; in the first, from `start_batch` on."""
        source, order = self.source, self.order
        if not isinstance(source, ShardStream):
            for epoch in self.epochs:
                yield {0: Cursor(_append_start(source.items(order.seed, epoch), MAX_REPLACEMENTS), 0)}
            return
        count = self.steps * order.lanes.batches_per_step * order.lanes.batch_size
        firsts = {lane: min(first, count) for lane, first in self._first_items().items()}
        readers = [source.rank_epochs(order.seed, self.epochs, lane, count, first) for lane, first in firsts.items()]
        for epoch, opened in zip(self.epochs, zip(*readers, strict=True), strict=True):
            starts = firsts.values() if epoch == self.epochs.start else [0] * len(firsts)
            yield {lane: Cursor(*each) for lane, *each in zip(firsts, opened, starts, strict=True)}

    def _first_items(self) -> dict[int, int]:
        """Returns the lanes of this process, which every step has, each with its first item from `start_batch` on."""
        start, firsts = self.order.start_batch, dict[int, int]()
        for batch in range(start, start + self.order.batches_per_step):
            for part in self.order.lanes.locate(self.order.positions(batch)):
                firsts.setdefault(part.lane, part.first)
        return firsts


def count_steps(num_images: int, batch_size: int, world_size: int) -> int:
    """Returns the number of steps in an epoch: its whole global batches.

    Raises:
        DataOptionError: there is none.
    """
    global_batch = batch_size * world_size
    if num_images < global_batch:
        raise DataOptionError(
            f"an epoch of {show_number(num_images, 'images')} has no batch of {show_number(batch_size, 'images')} * "
            f"{show_number(world_size, 'processes')} = {global_batch}: use a smaller batch."
        )
    return num_images // global_batch


def _append_start(items: Iterator[Any], number: int) -> Iterator[Any]:
    """Yields `items`, then its first `number` items again and again."""
    start = list(itertools.islice(items, number))
    return itertools.chain(start, items, itertools.cycle(start))
