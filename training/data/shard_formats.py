# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads shards of a data set: parquet files, and tar files as WebDataset writes them.

The number of rows is known before any row is read: from the footer of a parquet file, and from an index of the members
of a tar file, for which all headers are read once. Rows are read undecoded and in units: a row group of a parquet file,
or as many neighbours in a tar file as make a request worth it.
"""

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from modeling_esvit.images.decoding import Record
from modeling_esvit.storage.atomic import write_text
from training.data.columns import DataOptionError, ImageColumns
from training.data.shard_files import RangeReader, ShardError, ShardFile


# Parts of a file that are at most so many bytes apart are read in one request.
LARGEST_GAP = 64 * 1024
# Bytes of a tar file that are read at once. The headers of a remote file are read in steps of the same size; those of a
# local file in small steps, which skip most of what lies between them.
TAR_UNIT, LOCAL_STEP = 8 * 1024**2, 64 * 1024
TAR_IMAGES = ("jpg", "jpeg", "png", "webp")
UNLABELLED = -1


class ParquetShard:
    """Reads a parquet file: the columns of image and label alone, a row group at a time.

    Raises:
        ShardError: it cannot be read, or is not a whole parquet file.
    """

    unit_name = "row groups"

    def __init__(self, file: ShardFile) -> None:
        self.file = file
        try:
            self.metadata = pq.read_metadata(RangeReader(file))
        except pa.ArrowInvalid as error:
            raise ShardError(f"{file.url} is not a whole parquet file: {error}") from error
        groups = range(self.metadata.num_row_groups)
        self._ends = np.cumsum([self.metadata.row_group(i).num_rows for i in groups], dtype=np.int64)

    def __len__(self) -> int:
        return self.metadata.num_rows

    def check(self, columns: ImageColumns) -> None:
        """Checks that the file has the columns.

        Raises:
            ShardError: it lacks one of them.
        """
        names = self.metadata.schema.to_arrow_schema().names
        for column in (columns.image, columns.label):
            if column is not None and column not in names:
                raise ShardError(f"{self.file.url} has no column {column!r}, as other shards have; it has {names}.")

    def units(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Splits the rows `start` to `stop - 1` by row groups."""
        ends = [int(end) for end in self._ends if start < end < stop]
        return zip([start, *ends], [*ends, stop], strict=True)

    def read(self, start: int, stop: int, columns: ImageColumns, copy: ShardFile) -> list[Record]:
        """Reads the records of a unit, from the file or a copy of it."""
        group = int(np.searchsorted(self._ends, start, side="right"))
        names = [columns.image] if columns.label is None else [columns.image, columns.label]
        reader = RangeReader(copy, _column_ranges(self.metadata.row_group(group), names))
        try:
            with pq.ParquetFile(reader, metadata=self.metadata, pre_buffer=False) as file:
                table = file.read_row_group(group, columns=names, use_threads=False)
        except ShardError:  # raised by a read beyond those ranges
            raise
        except (pa.ArrowException, OSError) as error:
            raise ShardError(f"{copy.url} is damaged in row group {group}: {error}") from error
        first = int(self._ends[group]) - table.num_rows
        rows = table.slice(start - first, stop - start).to_pylist()
        return [self._record(row, start + index, columns) for index, row in enumerate(rows)]

    def _record(self, row: dict[str, Any], index: int, columns: ImageColumns) -> Record:
        image = row[columns.image]
        if isinstance(image, bytes):
            row = {**row, columns.image: {"bytes": image, "path": None}}
        elif isinstance(image, str):
            row = {**row, columns.image: {"bytes": None, "path": image}}
        record = columns.record(row)
        name = f"row {index}" if record.name is None else f"row {index} ({record.name})"
        return record._replace(name=f"{os.path.basename(self.file.url)}, {name}")


def _column_ranges(group: Any, names: list[str]) -> list[tuple[int, int]]:
    """Returns the byte ranges of the named columns of a row group, and joins neighbours."""
    chunks = [group.column(i) for i in range(group.num_columns)]
    ranges: list[tuple[int, int]] = []
    for chunk in chunks:
        if chunk.path_in_schema.split(".")[0] in names:
            start = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
            ranges.append((start, start + chunk.total_compressed_size))
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start - merged[-1][1] <= LARGEST_GAP:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


class Sample(NamedTuple):
    """Says where a tar file holds the image of a sample."""

    name: str
    offset: int
    size: int
    label: int  # or UNLABELLED


class TarShard:
    """Reads a tar file, in which members with a common stem are one sample, by the byte ranges of its images."""

    unit_name = "samples"

    def __init__(self, file: ShardFile, samples: list[Sample]) -> None:
        self.file = file
        # Arrays: the index of a million samples as Python objects would take gigabytes.
        self._names = np.array([os.fsencode(sample.name) for sample in samples])
        self._offsets = np.array([sample.offset for sample in samples], dtype=np.int64)
        self._sizes = np.array([sample.size for sample in samples], dtype=np.int64)
        self._labels = np.array([sample.label for sample in samples], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._names)

    @property
    def has_labels(self) -> bool:
        return bool((self._labels != UNLABELLED).all())

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
            offset, label = int(self._offsets[row]) - first, int(self._labels[row])
            image = bytes(content[offset : offset + int(self._sizes[row])])
            name = f"{os.path.basename(self.file.url)}, {os.fsdecode(self._names[row])}"
            records.append(Record(image, None if columns.label is None else label, name))
        return records


def open_tar(file: ShardFile, image: str | None, label: str | None, index_dir: Path | None) -> TarShard:
    """Opens a tar file by its index in `index_dir`; an index that is missing is made and written there."""
    if index_dir is None:
        return TarShard(file, index_tar(file, image, label))
    key = hashlib.sha256(repr((file.url, file.size, file.version, image, label)).encode()).hexdigest()[:16]
    path = index_dir / f"{os.path.basename(file.url)}-{key}.json"
    if not path.is_file():
        index_dir.mkdir(parents=True, exist_ok=True)
        index = {"shard": file.url, "samples": index_tar(file, image, label)}
        write_text(path, json.dumps(index), shared=True)
    return TarShard(file, [Sample(*sample) for sample in json.loads(path.read_text())["samples"]])


def index_tar(file: ShardFile, image: str | None, label: str | None) -> list[Sample]:
    """Lists the samples of a tar file by reading all of its headers.

    `image` and `label` are extensions, in upper or lower case. Without them, the image is the only member with one of
    TAR_IMAGES, and the label is `cls` if there is one.

    Raises:
        ShardError: it is not a whole, uncompressed tar file, or two members of a sample have one extension.
        DataOptionError: a sample has not exactly one image to choose, or a label that is not an integer.
    """
    image, label = (None if name is None else name.lower() for name in (image, label))
    reader = RangeReader(file, ahead=LOCAL_STEP if file.is_local else TAR_UNIT)
    try:
        with tarfile.open(fileobj=reader, mode="r:") as tar:
            samples = [_make_sample(file, *each, image, label) for each in _group_members(file, tar)]
            reader.seek(tar.offset)
    except tarfile.TarError as error:
        raise ShardError(f"{file.url} is not a whole, uncompressed tar file: {error}") from error
    # Python's tarfile does not notice when a file was cut off, or is damaged, between two members.
    if reader.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ShardError(f"{file.url} has no end mark after {len(samples)} samples: it was cut off, or is damaged.")
    return samples


Fields: TypeAlias = dict[str, tuple[tarfile.TarInfo, bytes | None]]


def _group_members(file: ShardFile, tar: tarfile.TarFile) -> Iterator[tuple[str, Fields]]:
    """Yields the stem of each sample and, by extension, its members, with their content if they are small."""
    stem, fields = "", Fields()
    for member in tar:
        match = re.fullmatch(r"((?:.*/)?[^./][^./]*)\.([^/]+)", member.name)
        if not member.isreg() or match is None:
            continue
        if match[1] != stem and fields:
            yield stem, fields
            fields = {}
        stem, extension = match[1], match[2].lower()
        if extension in fields:
            raise ShardError(f"{file.url} has two members {member.name!r} in one sample.")
        fields[extension] = member, _read_if_small(tar, member)
    if fields:
        yield stem, fields


def _read_if_small(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    """Reads a member that may be a class, which is a few digits; returns None for a longer one."""
    content = tar.extractfile(member) if member.size <= 32 else None
    return None if content is None else content.read()


def _make_sample(file: ShardFile, stem: str, fields: Fields, image: str | None, label: str | None) -> Sample:
    images = [name for name in fields if name in TAR_IMAGES] if image is None else [image]
    if len(images) != 1 or images[0] not in fields:
        raise DataOptionError(
            f"{file.url}: sample {stem!r} has the members {list(fields)}; image_column must name one of them that "
            f"every sample has. Without it, exactly one of {list(TAR_IMAGES)} must be there."
        )
    member = fields[images[0]][0]
    content = fields[label or "cls"][1] if (label or "cls") in fields else None
    if label is not None and content is None:
        raise DataOptionError(f"{file.url}: sample {stem!r} has no label {label!r}; its members are {list(fields)}.")
    if content is not None and not content.strip().isdigit():
        raise DataOptionError(f"{file.url}: the label of sample {stem!r} is {content!r}; labels are integers.")
    name = str(PurePosixPath(member.name))
    return Sample(name, member.offset_data, member.size, UNLABELLED if content is None else int(content))


Shard: TypeAlias = ParquetShard | TarShard
