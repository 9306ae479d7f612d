# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads shards of a data set: parquet files, and tar files as WebDataset writes them.

The number of rows is known before any row is read: from the footer of a parquet file, and from an index of the members
of a tar file, for which all headers are read once. Rows are read undecoded and in units: a row group of a parquet file,
or as many neighbours in a tar file as make a request worth it.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding import Record
from modeling_esvit.images.folders import LeftOut
from modeling_esvit.images.places import NOTHING, find_local_file
from modeling_esvit.images.rows import (
    ReadFeatures,
    describe_columns,
    find_access,
    is_string,
    read_features,
    read_file_features,
)
from modeling_esvit.storage.atomic import record_file, write_text
from modeling_esvit.storage.contents import HEAD, describe_stand_in
from modeling_esvit.storage.identity import compose, compute_file_checksum
from modeling_esvit.storage.manifest import find_damage
from training.data.columns import ImageColumns, find_label, name_label_kind
from training.data.shard_files import RangeReader, ShardError, ShardFile
from training.data.tar_index import TAR_UNIT, Sample, TarIndex, index_tar


if TYPE_CHECKING:
    import datasets
    import pyarrow as pa


logger = logging.getLogger(__name__)

# Parts of a file that are at most so many bytes apart are read in one request.
LARGEST_GAP = 64 * 1024
# Bytes of a row group above which slices of it are read, in requests of SLICE_REQUEST bytes.
LARGE_GROUP, SLICE, SLICE_REQUEST = 256 * 1024**2, 32 * 1024**2, 4 * 1024**2
INDEX_FORMAT = 4
UNLABELLED = -1
SHOWN = 8  # classes in a message
DAMAGE = (OSError, ValueError)  # what damaged parts of a file raise, beside errors of pyarrow


def list_schema_errors() -> tuple[type[Exception], ...]:
    """Returns what a damaged description of columns raises."""
    import pyarrow as pa

    return (*DAMAGE, pa.ArrowException, LookupError, AttributeError, TypeError)


class ParquetShard:
    """Reads a parquet file: the columns of image and label alone, a row group at a time.

    A row group of more than LARGE_GROUP bytes is read in slices, when they are asked for.

    Attributes:
        title: A short name that no other shard of the stream has.

    Raises:
        ShardError: it cannot be read, or is not a whole parquet file.
    """

    unit_name = "row groups"

    def __init__(self, file: ShardFile) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.file, self.title = file, os.path.basename(file.url)
        try:
            self.metadata = pq.read_metadata(RangeReader(file))
        except ShardError:  # raised by a read
            raise
        except (pa.ArrowException, *DAMAGE) as error:
            reason = describe_stand_in(RangeReader(file).read(HEAD)) or str(error).strip()
            raise ShardError(f"{file.url} is not a whole parquet file: {reason}") from error
        groups = range(self.metadata.num_row_groups)
        folder = os.path.dirname(os.path.abspath(file.url))
        self._access = find_access(folder) if file.is_local else NOTHING  # what its rows may open
        rows = [self.metadata.row_group(i).num_rows for i in groups]
        if min(rows, default=0) < 0 or sum(rows) != self.metadata.num_rows:
            raise ShardError(
                f"{file.url} is not a whole parquet file: its row groups have {sum(rows)} rows, and the file "
                f"{self.metadata.num_rows}."
            )
        self._ends = np.cumsum(rows, dtype=np.int64)

    def __len__(self) -> int:
        return self.metadata.num_rows

    def read_features(self) -> "datasets.Features":
        """Returns the columns of the file with their types.

        Raises:
            ShardError: what it says of them is damaged.
        """
        try:
            return read_features(self.metadata.schema.to_arrow_schema())
        except list_schema_errors() as error:
            raise ShardError(f"{self.file.url} is damaged where it describes its columns: {error}") from error

    def check(self, columns: ImageColumns) -> None:
        """Checks that the file has the columns, and labels that mean the same as those of other shards.

        Raises:
            ShardError: it lacks one of them, or its labels are of another kind, or numbered in another way.
        """
        features = self.read_features()
        for column in columns.list_names():
            if column not in features:
                raise ShardError(
                    f"{self.file.url} has no column {column!r}, as other shards have; it has "
                    f"{describe_columns(features)}."
                )
        if columns.label is not None:
            check_kind(self.file.url, columns.label, features[columns.label], columns.label_kind)
            if columns.class_names is not None:
                check_names(self.file.url, columns.label, features[columns.label], columns.class_names)

    def find_names(self, column: str) -> set[str | None]:
        """Returns the different strings in a column, by reading it as a whole.

        Raises:
            ShardError: it cannot be read.
        """
        names = set[str | None]()
        for group in range(self.metadata.num_row_groups):
            names.update(self._read_group(group, [column], self.file).column(column).unique().to_pylist())
        return names

    def find_named_files(self, columns: ImageColumns) -> dict[int, str]:
        """Returns the local file of each row whose image is in one, by reading the row groups that have such rows.

        Raises:
            ShardError: one cannot be read.
        """
        found = dict[int, str | None]()
        for start, stop in self.units(0, len(self)):
            records = self.read(start, stop, columns, self.file) if self._has_places(start, columns.image) else ()
            for row, record in enumerate(records, start):
                if isinstance(record.image, str):
                    found[row] = find_local_file(record.image, record.options.access)
        return {row: file for row, file in found.items() if file is not None}

    def _has_places(self, row: int, column: str) -> bool:
        """Returns whether rows of the row group of `row` may name their images: some have no bytes, as far as known."""
        group = self.metadata.row_group(int(np.searchsorted(self._ends, row, side="right")))
        chunks = {chunk.path_in_schema: chunk for chunk in _list_chunks(group, [column])}
        held = chunks.get(f"{column}.bytes", chunks.get(column))
        if held is None or is_string(self.read_features()[column]):
            return True
        if held.statistics is None or held.statistics.null_count != 0:
            return True
        # The least of long bytes is not known, and to look for the file of each path costs a minute a million rows.
        return held.statistics.has_min_max and held.statistics.min == b""  # no bytes come before all others

    def units(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Splits the rows `start` to `stop - 1` by row groups."""
        ends = [int(end) for end in np.unique(self._ends) if start < end < stop]
        return zip([start, *ends], [*ends, stop], strict=True)

    def count_bytes(self, columns: ImageColumns) -> list[int]:
        """Returns the size of each row group in memory."""
        return [
            sum(
                chunk.total_uncompressed_size
                for chunk in _list_chunks(self.metadata.row_group(i), columns.list_names())
            )
            for i in range(self.metadata.num_row_groups)
        ]

    def read(self, start: int, stop: int, columns: ImageColumns, copy: ShardFile) -> Iterable[Record]:
        """Reads the records of a unit, from the file or a copy of it."""
        group = int(np.searchsorted(self._ends, start, side="right"))
        size = self.count_bytes(columns)[group]
        if size > LARGE_GROUP:
            return self._read_slices(group, range(start, stop), columns, copy)
        table = self._read_group(group, columns.list_names(), copy)
        with self._name_damage(copy, group):
            first = int(self._ends[group]) - table.num_rows
            return self._make_records(table, first, range(start, stop), columns)

    def _read_group(self, group: int, names: list[str], copy: ShardFile) -> "pa.Table":
        """Returns the columns of these names of a row group."""
        import pyarrow.parquet as pq

        reader = RangeReader(copy, _column_ranges(self.metadata.row_group(group), names))
        with self._name_damage(copy, group):
            with pq.ParquetFile(reader, metadata=self.metadata, pre_buffer=False) as file:
                return file.read_row_group(group, columns=names, use_threads=False)

    def _read_slices(self, group: int, rows: range, columns: ImageColumns, copy: ShardFile) -> Iterator[Record]:
        """Yields records of a large row group, of which a slice is in memory. What lies before them is read, too."""
        import pyarrow.parquet as pq

        count, size = self.metadata.row_group(group).num_rows, self.count_bytes(columns)[group]
        first, batch_size = int(self._ends[group]) - count, max(SLICE * count // size, 1)
        # A buffered column is read in pieces, and not as a whole.
        options = {"metadata": self.metadata, "pre_buffer": False, "buffer_size": SLICE_REQUEST}
        with self._name_damage(copy, group), pq.ParquetFile(RangeReader(copy), **options) as file:
            chosen = {"row_groups": [group], "columns": columns.list_names(), "use_threads": False}
            for batch in file.iter_batches(batch_size, **chosen):
                if first >= rows.stop:
                    break
                yield from self._make_records(batch, first, rows, columns)
                first += batch.num_rows

    @contextmanager
    def _name_damage(self, copy: ShardFile, group: int) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except EsViTError:  # raised by a read, or for a label
            raise
        except (pa.ArrowException, *DAMAGE) as error:
            raise ShardError(f"{copy.url} is damaged in row group {group}: {error}") from error

    def _make_records(
        self, table: "pa.Table | pa.RecordBatch", first: int, rows: range, columns: ImageColumns
    ) -> list[Record]:
        """Makes the records of those of `rows` that a table has, whose first row has the number `first`."""
        start, stop = max(rows.start, first), min(rows.stop, first + table.num_rows)
        found = table.slice(start - first, max(stop - start, 0)).to_pylist()
        return [self._record(row, start + index, columns) for index, row in enumerate(found)]

    def _record(self, row: dict[str, Any], index: int, columns: ImageColumns) -> Record:
        record = columns.record(row)
        record = record._replace(options=record.options.restrict_to(self._access))
        name = f"row {index}" if record.name is None else f"row {index} ({record.name})"
        return record._replace(name=f"{self.title}, {name}")


def check_kind(url: str, label: str | None, feature: Any, expected: str | None) -> None:
    """Checks that a column holds labels of the kind that other shards have, or nulls.

    Raises:
        ShardError: it does not.
    """
    if name_label_kind(feature) not in (None, expected):
        raise ShardError(
            f"the column {label!r} of {url} holds {feature}, and that of other shards {expected}: write all shards "
            "with one type."
        )


def check_names(url: str, column: str | None, feature: Any, expected: list[str]) -> None:
    """Checks that a column numbers its classes as other shards do, if it names classes.

    Raises:
        ShardError: it does not.
    """
    names = getattr(feature, "names", None)
    if names is not None and [*map(compose, names)] != [*map(compose, expected)]:
        raise ShardError(
            f"the column {column!r} of {url} numbers the classes in another way than other shards: "
            f"{names[:SHOWN]} instead of {expected[:SHOWN]}. Read the files one by one, or write them with the "
            "same ClassLabel."
        )


def check_classes(files: Iterable[str], label: str | None = None, read: ReadFeatures = read_file_features) -> None:
    """Checks that parquet files that are read as one have labels of one kind and number their classes in one way.

    `datasets` asks the first one alone, and makes strings of the integers of others. Without the name of `label`, it is
    the column that `find_label` finds. `read` returns the columns of a file.

    Raises:
        ShardError: they do not, or one is not a whole parquet file.
    """
    known: dict[str, list[str]] = {}
    kind: str | None = None
    for file in files:
        features = _read_or_name_damage(file, read)
        for column, feature in features.items():
            if (names := getattr(feature, "names", None)) is not None:
                check_names(file, column, feature, known.setdefault(column, names))
        label = label or find_label(features)
        if label in features:
            kind = kind or name_label_kind(features[label])
            check_kind(file, label, features[label], kind)


def _read_or_name_damage(file: str, read: ReadFeatures) -> "datasets.Features":
    try:
        return read(file)
    except list_schema_errors():
        return ParquetShard(ShardFile.locate(file, retry_seconds=0)).read_features()  # says what is wrong


def _list_chunks(group: Any, names: list[str]) -> list[Any]:
    """Returns the chunks of a row group that belong to the columns of these names, with dots or not; a struct has one
    for each field.
    """
    chunks, starts = [group.column(i) for i in range(group.num_columns)], tuple(f"{name}." for name in names)
    return [chunk for chunk in chunks if f"{chunk.path_in_schema}.".startswith(starts)]


def _column_ranges(group: Any, names: list[str]) -> list[tuple[int, int]]:
    """Returns the byte ranges of the columns of a row group, and joins neighbours."""
    ranges: list[tuple[int, int]] = []
    for chunk in _list_chunks(group, names):
        start = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
        ranges.append((start, start + chunk.total_compressed_size))
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start - merged[-1][1] <= LARGEST_GAP:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


class TarShard:
    """Reads a tar file, in which members with a common stem are one sample, by the byte ranges of its images.

    Attributes:
        title: A short name that no other shard of the stream has.
        without_image, left_out: See `TarIndex`.
        labels: The text of each label; empty where there is none.
    """

    unit_name = "images"

    def __init__(self, file: ShardFile, index: TarIndex) -> None:
        self.file, self.title, samples = file, os.path.basename(file.url), index.samples
        self.without_image, self.left_out = index.without_image, index.left_out
        # Arrays: the index of a million samples as Python objects would take gigabytes.
        self._names = np.array([os.fsencode(sample.name) for sample in samples])
        self._offsets = np.array([sample.offset for sample in samples], dtype=np.int64)
        self._sizes = np.array([sample.size for sample in samples], dtype=np.int64)
        self.labels = np.array([compose(sample.label) for sample in samples], dtype=np.str_)
        self._numbers = np.full(len(samples), UNLABELLED, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def number(self, numbers: dict[str, int]) -> None:
        """Gives each label its number; an image without a label gets UNLABELLED."""
        found = [numbers.get(label, UNLABELLED) for label in self.labels.tolist()]
        self._numbers = np.array(found, dtype=np.int64)

    def units(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Splits the samples `start` to `stop - 1` into units of up to TAR_UNIT bytes, or of one larger sample."""
        while start < stop:
            limit = self._offsets[start] + TAR_UNIT
            end = int(np.searchsorted(self._offsets + self._sizes, limit, side="right"))
            end = min(max(end, start + 1), stop)
            yield start, end
            start = end

    def read(self, start: int, stop: int, columns: ImageColumns, copy: ShardFile) -> list[Record]:
        """Reads the records of a unit, from the file or a copy of it."""
        first = int(self._offsets[start])
        content = memoryview(copy.read_range(first, int(self._offsets[stop - 1] + self._sizes[stop - 1])))
        records = []
        for row in range(start, stop):
            offset, label = int(self._offsets[row]) - first, int(self._numbers[row])
            image = bytes(content[offset : offset + int(self._sizes[row])])
            name = f"{self.title}, {os.fsdecode(self._names[row])}"
            records.append(Record(image, None if columns.label is None else label, name, columns.options))
        return records


def open_tar(file: ShardFile, image: str | None, label: str | None, index_dir: Path | None) -> TarShard:
    """Opens a tar file by its index in `index_dir`; one that is missing or damaged is made and written there.

    The index of a file whose version nobody tells is not kept: the file may be another one the next time. One of a
    repository on the Hub is named with its commit, which never changes. A local file may be replaced by one of the same
    size and time, and is known by its content, too, as far as `compute_file_checksum` looks at it.
    """
    is_known = bool(file.version) or file.url.startswith("hf://")
    if index_dir is None or not is_known:
        return TarShard(file, index_tar(file, image, label))
    content = compute_file_checksum(file.url) if file.is_local else None
    key = hashlib.sha256(repr((INDEX_FORMAT, file.url, file.size, file.version, content, image, label)).encode())
    path = index_dir / f"{os.path.basename(file.url)}-{key.hexdigest()[:16]}.json"
    damage = find_damage(index_dir, [path.name]) if path.is_file() else ["it is missing"]
    if damage and path.is_file():
        logger.warning("The index of %s in %s is made anew: %s.", file.url, index_dir, damage[0])
    if damage:
        index_dir.mkdir(parents=True, exist_ok=True)
        index = {"shard": file.url, **index_tar(file, image, label)._asdict()}
        write_text(path, json.dumps(index), shared=True)
        record_file(index_dir, path.name, shared=True)
    return TarShard(file, _read_index(path))


def _read_index(path: Path) -> TarIndex:
    found = json.loads(path.read_text(encoding="utf-8"))
    return TarIndex(
        [Sample(*sample) for sample in found["samples"]], found["without_image"], LeftOut(found["left_out"])
    )


Shard: TypeAlias = ParquetShard | TarShard
