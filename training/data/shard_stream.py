# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Streams shards in an order that is computed from (seed, epoch, process) alone, before anything is read.

    shards         follow each other in a permutation keyed by (seed, epoch), from a random row on, and around
    process r      has the rows r * n .. (r + 1) * n - 1, with n = steps an epoch x images a process and step; so each
                   row comes once, but for a few at the end, which differ from epoch to epoch
    shuffle        its rows are cut into equal blocks of up to `shuffle_window`, each in a keyed permutation

So a run can begin at any step: reading starts at the block of that step. A process reads only the row groups (or tar
members) that its rows are in.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from modeling_esvit.images.data_errors import DataOptionError, EmptySourceError
from modeling_esvit.images.decoding import DecodingOptions, Record
from modeling_esvit.images.folders import LeftOut
from modeling_esvit.images.read_ahead import in_order
from modeling_esvit.images.wording import show_number
from training.data.columns import ImageColumns
from training.data.shard_cache import ShardCache
from training.data.shard_formats import LARGE_GROUP, SLICE, ParquetShard, Shard, TarShard
from training.data.shard_names import shorten_names
from training.data.tar_index import TAR_UNIT
from training.data.unreadable import SkipLog
from training.views.draw import Draws, make_keyed_generator


READERS = 4  # threads that read shards, with a request each


@dataclass(frozen=True)
class StreamOptions:
    """Says how a stream of shards is read.

    Attributes:
        samples_per_epoch: Images an epoch has, if not all of them.
        shuffle_window: Images that are shuffled at a time; up to twice as many are in memory.
        retry_seconds: How long faults of a server may last.
        index_dir: Folder that keeps the index of tar files from one run to the next; None keeps it in memory.
        cache: Folder for copies of the shards that are read; None stores nothing. See `ShardCache`.
        max_unreadable: Share of samples that may have no image. See `SkipLog`.
        labels: Whether labels are needed. If they are strings in parquet files, all of them are read at the opening.
    """

    samples_per_epoch: int | None = None
    shuffle_window: int = 1000
    retry_seconds: float = 300
    index_dir: Path | None = None
    cache: Path | None = None
    max_unreadable: float = 0.01
    labels: bool = True


DEFAULT_STREAM = StreamOptions()


class RowSpan(NamedTuple):
    """Names neighbouring rows of one shard."""

    shard: int
    start: int
    stop: int


def order_shards(lengths: list[int], seed: int, epoch: int) -> list[RowSpan]:
    """Returns all rows of all shards in the order of an epoch. A part of the first shard may come at the end."""
    generator = make_keyed_generator(seed, epoch, draws=Draws.ORDER)
    runs = [RowSpan(shard, 0, lengths[shard]) for shard in generator.permutation(len(lengths)).tolist()]
    total = sum(lengths)
    first = int(generator.integers(total))
    return cut(runs, first, total - first) + cut(runs, 0, first)


def cut(runs: list[RowSpan], first: int, count: int) -> list[RowSpan]:
    """Returns the rows `first` to `first + count - 1` of those in `runs`."""
    found, position = [], 0
    for shard, start, stop in runs:
        low, high = max(first - position, 0), min(first + count - position, stop - start)
        if low < high:
            found.append(RowSpan(shard, start + low, start + high))
        position += stop - start
    return found


def find_block_bounds(count: int, window: int) -> list[int]:
    """Returns the starts of the blocks of `count` rows, and the end of the last.

    Blocks have at most `window` rows, and differ by at most one row.
    """
    blocks = -(-count // window)
    return [count * block // blocks for block in range(blocks + 1)]


class ShardStream:
    """Presents the images of shards as a source for the loader.

    Raises:
        DataOptionError: `samples_per_epoch` is more than there is, or less than 1.
        EmptySourceError: the shards have no rows.
    """

    def __init__(
        self,
        shards: list[Shard],
        columns: ImageColumns,
        options: StreamOptions,
    ) -> None:
        self.shards, self.columns, self._window = shards, columns, options.shuffle_window
        self._cache = None if options.cache is None else ShardCache(options.cache)
        self.has_labels, self.class_names = columns.label is not None, columns.class_names
        self._lengths = [len(shard) for shard in shards]
        self.left_out = count_left_out(shards)
        for shard, title in zip(shards, shorten_names([shard.file.url for shard in shards]), strict=True):
            shard.title = title
        if not sum(self._lengths):
            raise EmptySourceError(f"the {len(shards)} shards, {shards[0].file.url} and so on, have no rows.")
        self._length = sum(self._lengths) if options.samples_per_epoch is None else options.samples_per_epoch
        if not 1 <= self._length <= sum(self._lengths):
            raise DataOptionError(
                f"samples_per_epoch is {options.samples_per_epoch}, but the shards have {sum(self._lengths)} images: "
                "give a number from 1 to that."
            )

    def __len__(self) -> int:
        return self._length

    @property
    def without_image(self) -> dict[str, str]:
        """Returns a sentence for each sample of a tar file that has no image, by its name."""
        tars = [shard for shard in self.shards if isinstance(shard, TarShard)]
        named = [(tar.title, *sample) for tar in tars for sample in tar.without_image.items()]
        return {f"{title}, {name}": f"{title}: {why}" for title, name, why in named}

    def check_without_image(self, max_unreadable: float) -> None:
        """Warns of samples without an image, by name.

        Raises:
            TooManyUnreadableImagesError: more samples than `max_unreadable` allows have no image.
        """
        skipped = SkipLog(sum(self._lengths) + len(self.without_image), max_unreadable)
        skipped.add(self.without_image)
        skipped.warn()

    @property
    def decoding(self) -> DecodingOptions:
        """Returns how the images are decoded."""
        return self.columns.options

    def count_units(self) -> int:
        """Counts what is read as a whole: row groups of parquet files, samples of tar files."""
        if isinstance(self.shards[0], TarShard):
            return sum(self._lengths)
        return sum(1 for shard in self.shards if len(shard) for _ in shard.units(0, len(shard)))

    def check_processes(self, world_size: int) -> None:
        """Checks that each process has something of its own to read.

        Raises:
            DataOptionError: there are more processes than row groups, so some would read what others read.
        """
        if self.count_units() < world_size:
            raise DataOptionError(
                f"the {len(self.shards)} shards have {self.count_units()} {self.shards[0].unit_name} in all, for "
                f"{world_size} processes: each must have one of its own. Write them with smaller row groups, or read "
                "them without streaming."
            )

    def describe(self, per_process: int, processes: int) -> str:
        """Describes how an epoch is dealt out, in numbers, to the processes that began the run."""
        total, used = sum(self._lengths), per_process * processes
        blocks = len(find_block_bounds(per_process, self._window)) - 1
        return "\n".join(
            [
                f"stream           = {total} images in {len(self.shards)} shards, {self.count_units()} "
                f"{self.shards[0].unit_name}; an epoch has {len(self)}",
                f"images a process = {per_process}: process r has rows r x {per_process} .. of the shards in the "
                f"epoch's order, {self._window} at most ({blocks} blocks) shuffled at a time",
                f"left out         = {total} - {show_number(processes, 'processes')} x {per_process} = {total - used} "
                "images, others each epoch",
                f"held             = {self._describe_held()} a process",
            ]
        )

    def _describe_held(self) -> str:
        """Describes what is in memory beside the batches."""
        window = f"and up to 2 x {self._window} images"
        sizes = self._count_group_bytes()
        if not sizes:
            return f"up to {READERS} x {TAR_UNIT / 1e6:.0f} MB that are read, {window}"
        whole = max((size for size in sizes if size <= LARGE_GROUP), default=0)
        text = f"up to {READERS} row groups of {whole / 1e6:.1f} MB that are read, {window}"
        large = [size for size in sizes if size > LARGE_GROUP]
        if not large:
            return text
        return (
            f"{text}; of {len(large)} row groups of up to {max(large) / 1e6:.0f} MB a slice of {SLICE / 1e6:.0f} MB "
            "or a page (nothing is read ahead of it: smaller row groups are faster)"
        )

    def _count_group_bytes(self) -> list[int]:
        parquets = [shard for shard in self.shards if isinstance(shard, ParquetShard)]
        return [size for shard in parquets for size in shard.count_bytes(self.columns)]

    def rank_items(self, seed: int, epoch: int, rank: int, count: int, start: int) -> Iterator[Record]:
        """Yields the records of process `rank`, which has `count` of them, from number `start` on.

        There is no end: after the last record, the last block repeats, to replace images that cannot be read.

        Raises:
            ShardError: what a shard should hold could not be read.
        """
        return next(self.rank_epochs(seed, range(epoch, epoch + 1), rank, count, start))

    def rank_epochs(self, seed: int, epochs: range, rank: int, count: int, start: int) -> Iterator[Iterator[Record]]:
        """Yields the `rank_items` of each epoch; those of the first one begin with number `start`.

        One reader serves all epochs: while the last block of an epoch is consumed, the next epoch is already read. The
        items of an epoch are valid until those of the next one are asked for.
        """
        firsts = [start if epoch == epochs.start else 0 for epoch in epochs]
        bounds = [self._bounds_from(first, count) for first in firsts]
        runs = (self._runs(seed, epoch, rank, count, each[0]) for epoch, each in zip(epochs, bounds, strict=True))
        records = self._records(itertools.chain.from_iterable(runs))
        for epoch, first, each in zip(epochs, firsts, bounds, strict=True):
            part = itertools.islice(records, count - each[0])
            yield self._shuffle(part, partial(self._draw_order, seed, epoch, rank * count), each, first - each[0])
            deque(part, maxlen=0)  # skips what was not asked for: the reader must be at the next epoch's start

    def rows(self, start: int, stop: int) -> Iterator[Record]:
        """Yields the records `start` to `stop - 1` of all shards in stored order, and reads ahead.

        Raises:
            ShardError: what a shard should hold could not be read.
        """
        whole = [RowSpan(shard, 0, length) for shard, length in enumerate(self._lengths)]
        return self._records(iter(cut(whole, start, stop - start)))

    def _bounds_from(self, start: int, count: int) -> list[int]:
        """Returns the bounds of the blocks, from the one that holds `start` on."""
        bounds = find_block_bounds(count, self._window)
        return bounds[next(block for block, end in enumerate(bounds[1:]) if start < end or end == count) :]

    def _runs(self, seed: int, epoch: int, rank: int, count: int, first: int) -> list[RowSpan]:
        return cut(order_shards(self._lengths, seed, epoch), rank * count + first, count - first)

    @staticmethod
    def _draw_order(seed: int, epoch: int, first_row: int, begin: int, end: int) -> list[int]:
        """Draws the permutation of a block."""
        generator = make_keyed_generator(seed, epoch, first_row + begin, draws=Draws.WINDOW)
        return generator.permutation(end - begin).tolist()

    @staticmethod
    def _shuffle(
        records: Iterator[Record], order: Callable[[int, int], list[int]], bounds: list[int], skip: int
    ) -> Iterator[Record]:
        """Yields the records block by block, each in its order, but the first `skip`; then repeats the last block."""
        block = list[Record]()
        for begin, end in itertools.pairwise(bounds):
            block.clear()  # before the next block is in memory
            block += itertools.islice(records, end - begin)
            block[:] = [block[index] for index in order(begin, end)]
            yield from itertools.islice(block, skip, None)
            skip = 0
        yield from itertools.cycle(block)

    def _records(self, runs: Iterator[RowSpan]) -> Iterator[Record]:
        units = (
            RowSpan(run.shard, start, stop)
            for run in runs
            for start, stop in self.shards[run.shard].units(run.start, run.stop)
        )
        return itertools.chain.from_iterable(
            in_order(
                units, self._read_unit, threads=READERS, ahead=self._window, weight=lambda unit: unit.stop - unit.start
            )
        )

    def _read_unit(self, unit: RowSpan) -> Iterable[Record]:
        shard = self.shards[unit.shard]
        file = shard.file if self._cache is None else self._cache.local(shard.file)
        return shard.read(unit.start, unit.stop, self.columns, file)

    @staticmethod
    def read(item: Record) -> Record:
        """Returns the record itself, which the stream has read."""
        return item


def count_left_out(shards: list[Shard]) -> LeftOut:
    """Returns what lies in tar files beside the images that are read."""
    found = LeftOut()
    for tar in (shard for shard in shards if isinstance(shard, TarShard)):
        found.update(tar.left_out)
        if tar.without_image:
            found["samples without an image"] += len(tar.without_image)
    return found
