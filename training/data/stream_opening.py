# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Opens streams of shards: finds the columns of parquet files and the samples of tar files, and numbers classes."""

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, Union

import numpy as np
import torch.distributed

from modeling_esvit.embed.progress import show_progress
from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.images.decoding import DecodingOptions
from modeling_esvit.images.names import has_ending
from modeling_esvit.images.read_ahead import in_order
from modeling_esvit.images.rows import merge_features
from training.data.columns import ROWS, ImageColumns
from training.data.shard_files import ShardError, ShardFile
from training.data.shard_formats import ParquetShard, TarShard, open_tar
from training.data.shard_stream import DEFAULT_STREAM, ShardStream, StreamOptions
from training.data.tar_index import LABEL, number_labels


if TYPE_CHECKING:
    import datasets


OPENERS = 16  # threads that open shards, with a request each
SHOWN_FROM = 64  # opening fewer shards shows no progress bar
Result = TypeVar("Result")


def open_stream(
    urls: list[str],
    options: StreamOptions = DEFAULT_STREAM,
    *,
    features: Union["datasets.Features", None] = None,
    image_column: str | None = None,
    label_column: str | None = None,
    decoding: DecodingOptions = ROWS,
) -> ShardStream:
    """Opens the stream of parquet files, or of tar files, with these paths or URLs.

    Processes of a torch.distributed group share the work of opening them (for tar files: of reading all headers).

    Args:
        features: The features of the data set, if they are not declared in the files.
        image_column, label_column: Columns of parquet files, see `ImageColumns.find`, or extensions in tar files.
        decoding: How images are decoded, and what rows may open: nothing beside themselves, unless it says so.

    Raises:
        ShardError: one cannot be read, or is damaged.
        DataOptionError, EmptySourceError: see `ShardStream`, `ImageColumns.find` and `index_tar`.
    """
    if all(has_ending(url, ".tar") for url in urls):
        return _open_tars(urls, options, image_column, label_column, decoding)
    if not all(has_ending(url, ".parquet") for url in urls):
        other = next(url for url in urls if not has_ending(url, ".parquet"))
        raise DataOptionError(
            f"{other!r} cannot be streamed: shards are .parquet files, or (uncompressed) .tar files. "
            "Others are read in place, without streaming."
        )
    parquets = _share_opening(urls, lambda url: ParquetShard(ShardFile.locate(url, options.retry_seconds)))
    columns = ImageColumns.find(features or find_features(parquets), image_column, label_column)
    columns = columns if options.labels else columns.without_label()
    for shard in parquets:
        shard.check(columns)
    columns = _number_names(parquets, columns) if columns.strings else columns
    return ShardStream([*parquets], columns._replace(options=decoding), options)


def _open_tars(
    urls: list[str],
    options: StreamOptions,
    image_extension: str | None,
    label_extension: str | None,
    decoding: DecodingOptions,
) -> ShardStream:
    def open_one(url: str) -> TarShard:
        file = ShardFile.locate(url, options.retry_seconds)
        return open_tar(file, image_extension, label_extension, options.index_dir)

    tars = _share_opening(urls, open_one)
    columns = ImageColumns(image_extension or "image", None, None, options=decoding)
    columns = _number_classes(tars, columns, label_extension) if options.labels else columns
    stream = ShardStream([*tars], columns, options)
    stream.check_without_image(options.max_unreadable)
    return stream


def find_features(parquets: list[ParquetShard]) -> "datasets.Features":
    """Returns the columns of the first shard, with what other shards say of their types, see `merge_features`."""
    import datasets

    found = [shard.read_features() for shard in parquets]
    merged = merge_features(found)
    return datasets.Features({name: merged[name] for name in found[0]})


def _number_names(parquets: list[ParquetShard], columns: ImageColumns) -> ImageColumns:
    """Returns the columns with a number for each label, for which the labels of all shards are read."""
    by_url = {shard.file.url: shard for shard in parquets}
    found = _share_opening([*by_url], lambda url: by_url[url].find_names(str(columns.label)))
    return columns.number_names(itertools.chain.from_iterable(found))


def _number_classes(tars: list[TarShard], columns: ImageColumns, label: str | None) -> ImageColumns:
    """Numbers the labels of all tar files alike. There are no labels where no image has one."""
    numbers, names = number_labels(np.unique(tar.labels).tolist() for tar in tars)
    for tar in tars:
        tar.number(numbers)
    return columns._replace(label=(label or LABEL) if numbers else None, class_names=names)


def _share_opening(urls: list[str], open_one: Callable[[str], Result]) -> list[Result]:
    """Returns `open_one(url)` for each URL, in order. Every process of the group opens its share, and gets all.

    Raises:
        ShardError: this or another process could not open its share.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
    results = in_order(iter(urls[rank::world]), open_one, threads=OPENERS, ahead=4 * OPENERS)
    is_shown = rank == 0 and len(urls) >= SHOWN_FROM
    shown = show_progress("Opening shards", len(urls[rank::world]), "shard", shown=is_shown, iterable=results)
    if not distributed:
        return list(shown)
    mine: list[Result] = []
    failure: OSError | ValueError | None = None
    try:
        mine += shown
    except (OSError, ValueError) as error:
        failure = error
    parts: list[tuple[list[Result], str | None]] = [([], None)] * world
    sent = (mine, None if failure is None else str(failure))
    torch.distributed.all_gather_object(parts, sent)
    if failure is not None:
        raise failure
    for message in filter(None, (message for _, message in parts)):
        raise ShardError(message)
    return [parts[index % world][0][index // world] for index in range(len(urls))]
