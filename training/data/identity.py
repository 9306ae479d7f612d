# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Identifies the images of a data source, see `modeling_esvit.storage.identity`."""

from functools import cache, partial

from modeling_esvit.images.rows import find_named_files
from modeling_esvit.storage.identity import (
    FileState,
    Identity,
    compute_checksum,
    compute_file_checksum,
    find_named_states,
    identify_dataset,
    identify_files,
    pick_samples,
)
from training.data.shard_formats import ParquetShard
from training.data.shard_names import commit_of
from training.data.shard_stream import ShardStream
from training.data.sources import DatasetSource, ImageSource


def identify_source(source: ImageSource) -> Identity:
    """Returns what distinguishes the images of `source` from others.

    That is, for a folder, the names and sizes of its files; for a stream those of its shards, with the versions that a
    server states, and the commit of a data set on the Hub; for a data set in place the number and size of its rows. For
    all of them also some of the content, and the files that rows name.
    """
    if isinstance(source, ShardStream):
        return identify_shards(source)
    if isinstance(source, DatasetSource):
        named = find_named_files(source.dataset, source.columns.image, source.decoding.access)
        return identify_dataset(source.dataset, "row {}".format, partial(read_row, source), named)
    return identify_files(source.paths(), source.root)


def read_row(source: DatasetSource, row: int) -> tuple[bytes | str, int | None]:
    """Returns the image of a row, as bytes or by its path or URL, and its label."""
    record = source.record(row)
    return record.get_source(), record.label


def identify_shards(source: ShardStream) -> Identity:
    """Returns the identity of a stream: a local shard is known by its content, too, and a remote one by its version."""
    files, named = [shard.file for shard in source.shards], find_named_files_of_shards(source)
    states = {file.url: FileState(file.size, time=file.version) for file in files if file.is_local}
    states |= {file.url: FileState(file.size, version=file.version) for file in files if not file.is_local}
    states |= find_named_states(named)
    checksum = cache(compute_file_checksum)  # an archive is the file of many rows
    return Identity(
        images=sum(len(shard) for shard in source.shards),
        order=compute_checksum(*(file.url for file in files)),
        files=states,
        samples={file.url: compute_file_checksum(file.url) for file in files if file.is_local}
        | {row: checksum(named[row]) for row in pick_samples([*named])},
        commit=commit_of([file.url for file in files]),
    )


def find_named_files_of_shards(source: ShardStream) -> dict[str, str]:
    """Returns the files that rows of local shards name, by a name of the row that begins with that of the shard."""
    return {
        f"{shard.file.url}, row {row}": file
        for shard in source.shards
        if isinstance(shard, ParquetShard) and shard.file.is_local
        for row, file in shard.find_named_files(source.columns).items()
    }
