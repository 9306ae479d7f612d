# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Opens sources of images: a folder of files, a `datasets` data set in place, or a stream of shards.

    source = open_source("photographs/")               # any nesting; formats: see images/formats.py
    source = open_source("shards/*.parquet")           # also: a folder of them, or of Dataset.save_to_disk
    source = open_source("shards/*.tar")               # as WebDataset writes them; also https://.../shard.tar
    source = open_source("org/name", streaming=True)   # a data set of the Hub

A source hands out undecoded records, in an order that is a function of (seed, epoch); `decode` makes
the RGB image of a record.
"""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np

from modeling_esvit.images.data_errors import DataNotFoundError, DataOptionError, EmptySourceError
from modeling_esvit.images.decoding import DEFAULT, DecodingOptions, Record
from modeling_esvit.images.folders import LeftOut, find_in_folder, has_images
from modeling_esvit.images.names import has_ending, show_name
from modeling_esvit.images.places import Access
from modeling_esvit.images.row_folders import find_folder_access, is_row_folder, is_saved_to_disk
from modeling_esvit.images.rows import find_access
from modeling_esvit.images.shards import list_shards
from modeling_esvit.storage.identity import compose
from modeling_esvit.storage.paths import expand_home
from modeling_esvit.storage.url_secrets import hide_secrets
from training.data.columns import ImageColumns, is_float, refuse_high_class
from training.data.shard_formats import TarShard
from training.data.shard_names import find_shards, names_shards, refuse_compressed
from training.data.shard_stream import DEFAULT_STREAM, ShardStream, StreamOptions
from training.data.stored_rows import find_split_shards, load_rows
from training.data.stream_opening import open_stream
from training.views.draw import Draws, make_keyed_generator


if TYPE_CHECKING:
    import datasets


TABLE_KINDS = (".arrow", ".csv", ".json", ".jsonl", ".tsv")
TABLES = " Rows of tables are read from parquet files, which `datasets` and pandas write (to_parquet)."


def shuffle_epoch(num_images: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the permutation of `range(num_images)` in which an epoch visits the images: position -> index."""
    return make_keyed_generator(seed, epoch, draws=Draws.ORDER).permutation(num_images)


class FolderSource:
    """Reads all images below a folder, sorted by path. A class is a first-level subfolder, or two whose names differ in
    the code points of their accents alone.

    `left_out` counts what is left out (see `folders.py`). There are no classes unless every image lies in a subfolder.

    Raises:
        DataNotFoundError: `root` is not a folder.
        EmptySourceError: no file below it has the extension of a format that is read here.
    """

    def __init__(self, root: str | os.PathLike[str], options: DecodingOptions = DEFAULT) -> None:
        self.root, self.decoding = Path(root), options
        if not self.root.is_dir():
            raise DataNotFoundError(f"{str(root)!r} is not a folder. Name one; FOLDER:SPLIT is the folder SPLIT in it.")
        found = find_in_folder(self.root)
        paths, self.left_out = found.paths, found.left_out
        if not paths:
            others = self.left_out.describe()
            raise EmptySourceError(
                f"no image below {str(root)!r}, {f'only {others}' if others else 'nor another'}: no file name ends "
                "in .jpg, .png, .tiff, .webp or another extension of a format that is read here."
                + (f" A glob names parquet files: {root}/**/*.parquet." if ".parquet" in self.left_out else "")
                + (TABLES if {*self.left_out}.intersection(TABLE_KINDS) else "")
            )
        # Arrays, not lists: worker processes share their pages, whereas reading a list copies them (reference counts).
        self._paths = np.array([os.fsencode(path) for path in paths])
        self.has_labels = all(os.sep in path for path in paths)
        self.class_names: list[str] | None = None
        if self.has_labels:
            names, self._labels = np.unique([compose(path.split(os.sep)[0]) for path in paths], return_inverse=True)
            self.class_names = names.tolist()

    def __len__(self) -> int:
        return len(self._paths)

    def paths(self) -> list[str]:
        """Returns the paths of all images, relative to the root."""
        return [os.fsdecode(path) for path in self._paths]

    def items(self, seed: int, epoch: int) -> Iterator[int]:
        """Yields the indices of all images, in the order of the epoch."""
        return iter(shuffle_epoch(len(self), seed, epoch).tolist())

    def list_labels(self) -> list[int]:
        """Returns the class of each image; there must be some."""
        return self._labels.tolist()

    def list_names(self) -> list[str]:
        """Returns a name of each image that is the same on every system."""
        return [path.replace(os.sep, "/") for path in self.paths()]

    def select(self, rows: np.ndarray) -> "FolderSource":
        """Returns the images with these indices, with the same classes and numbers of them; there must be classes."""
        chosen = copy.copy(self)
        chosen._paths, chosen._labels = self._paths[rows], self._labels[rows]
        return chosen

    def read(self, item: int) -> Record:
        """Returns the record of the image with index `item`, not opened yet."""
        path = os.fsdecode(self._paths[item])
        label = int(self._labels[item]) if self.has_labels else None
        return Record(str(self.root / path), label, show_name(path), self.decoding)


class DatasetSource:
    """Reads a map-style `datasets.Dataset` in place.

    Raises:
        DataOptionError: the columns cannot be found (see `ImageColumns.find`).
        EmptySourceError: it has no rows.

    Args:
        folder: The folder of its parquet files, to which paths in its rows belong. See `locate_image`.
    """

    def __init__(
        self,
        dataset: "datasets.Dataset",
        image_column: str | None = None,
        label_column: str | None = None,
        options: DecodingOptions = DEFAULT,
    ) -> None:
        if len(dataset) == 0:
            raise EmptySourceError("the data set has no rows.")
        columns = ImageColumns.find(dataset.features, image_column, label_column)
        columns = columns.number_names(dataset.unique(columns.label)) if columns.strings else columns
        if columns.label is not None and is_float(dataset.features[columns.label]):
            columns = columns.check_floats(dataset.unique(columns.label), is_named=label_column is not None)
        self.columns, self.decoding = columns._replace(options=options), options
        self.dataset, self.left_out = self.columns.select(dataset), LeftOut()
        self.rows: np.ndarray | range = range(len(dataset))  # their numbers in the whole data set
        self.has_labels, self.class_names = self.columns.label is not None, self.columns.class_names

    def __len__(self) -> int:
        return len(self.dataset)

    def items(self, seed: int, epoch: int) -> Iterator[int]:
        """Yields the indices of all rows, in the order of the epoch."""
        return iter(shuffle_epoch(len(self), seed, epoch).tolist())

    def list_labels(self) -> list[int | None]:
        """Returns the class of each row; there must be a column of them."""
        return [*map(self.columns.number_label, self.dataset[self.columns.label][:])]

    def list_names(self) -> list[str]:
        """Returns a name of each row: its number in the whole data set, since images there may have no name."""
        return [f"row {row}" for row in self.rows]

    def select(self, rows: np.ndarray) -> "DatasetSource":
        """Returns the rows with these indices, with the same classes and numbers of them."""
        chosen = copy.copy(self)
        chosen.dataset, chosen.rows = self.dataset.select(rows), np.asarray(self.rows)[rows]
        return chosen

    def read(self, item: int) -> Record:
        """Returns the record of row `item`."""
        record, row = self.record(item), self.rows[item]
        return record._replace(name=f"row {row} ({record.name})" if record.name else f"row {row}")

    def record(self, item: int) -> Record:
        """Returns the record of row `item` as it stands there."""
        return self.columns.record(self.dataset[item])


ImageSource: TypeAlias = FolderSource | DatasetSource | ShardStream
Place: TypeAlias = dict[str, str | None]  # split, config_name and revision of data
Columns: TypeAlias = dict[str, str | None]  # image_column and label_column


def open_source(
    data: Union[str, os.PathLike[str], "datasets.Dataset"],
    *,
    split: str | None = None,
    config_name: str | None = None,
    revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    streaming: bool = False,
    stream: StreamOptions = DEFAULT_STREAM,
    decoding: DecodingOptions = DEFAULT,
) -> ImageSource:
    """Opens the source of images that `data` names.

    Args:
        data: A folder of images, or of zip files of images; a folder, glob or pattern (see `shard_names`) of parquet or
            tar files (in the folder itself or in its `data` subfolder), also by URL; a folder written by
            `save_to_disk`; "namespace/name" of a Hub data set; or a `datasets.Dataset`.
        split: A split of a data set (default "train"), or a subfolder of a folder of images (default: all of it).
        config_name: The configuration, if a data set has several.
        revision: Branch, tag or commit of a data set of the Hub.
        image_column, label_column: See `ImageColumns.find`; for tar files, the extensions of the members.
        streaming: Read parquet files and Hub data sets as a stream: nothing is stored on disk. Tar files and URLs
            always are.
        stream: How a stream is read.
        decoding: How images are decoded, and what rows may open. A `datasets.Dataset` may open everything.

    Raises:
        DataNotFoundError, EmptySourceError, DataOptionError: see their descriptions.
        ShardError: a shard cannot be read, or is damaged.
    """
    if not isinstance(data, (str, os.PathLike)):
        return _open_dataset(data, image_column, label_column, decoding)
    name = _read_name(data)
    path = expand_home(name)
    where = {"split": split, "config_name": config_name, "revision": revision}
    columns = {"image_column": image_column, "label_column": label_column}
    _refuse_revision(path, name, revision)
    if streaming or _is_tar(name) or "://" in name:
        _refuse_to_stream(path, **columns)
        return _open_shards(name, where, columns, stream, decoding)
    _refuse_in_place(path, name, stream)
    if os.path.isdir(path) and not _is_dataset_folder(path, image_column):
        _refuse_dataset_options(path, **columns, config_name=config_name)
        return FolderSource(path if split is None else path / split, decoding)
    return _open_rows(name, where, columns, decoding)


def describe_labels(source: ImageSource) -> str:
    """Says what a source without labels has in their place."""
    if isinstance(source, FolderSource):
        loose = [path for path in source.paths() if os.sep not in path]
        if not loose:
            return f"All images of {str(source.root)!r} lie in one subfolder, which is one class."
        return (
            f"{len(loose)} of {len(source)} images of {str(source.root)!r} lie in no subfolder, such as "
            f"{show_name(loose[0])}: move them away, or into the subfolder of their class."
        )
    if isinstance(source, ShardStream) and isinstance(source.shards[0], TarShard):
        return "The samples of the tar files have no member .cls; label_column names another extension."
    if isinstance(source, DatasetSource) and str(source.record(0).image).startswith("zip://"):
        return "In zip files, put the images of each class into a folder of their own."
    return f"label_column can choose one of the columns: {source.columns.described}."


def name_numbers(train: FolderSource | DatasetSource) -> list[str]:
    """Returns a name for each number from 0 to the highest, if labels are numbers without names; none otherwise.

    Raises:
        DataOptionError: a label is no number of a class, or so high that a list up to it would take the memory.
    """
    if isinstance(train, FolderSource) or train.columns.label is None:
        return []
    labels = [*map(train.columns.number_label, train.dataset.unique(train.columns.label))]
    numbers = [label for label in labels if label is not None and label >= 0]
    if len(numbers) < len(labels):
        raise DataOptionError(f"label_column {train.columns.label!r} has rows without a class: leave them out.")
    highest = max(numbers, default=-1)
    refuse_high_class(train.columns.label, highest)
    return [str(number) for number in range(highest + 1)]


def is_image_folder(data: str, image_column: str | None = None) -> bool:
    """Returns whether data are a folder of image files, to which options about columns do not apply."""
    path = expand_home(data)
    return os.path.isdir(path) and not _is_dataset_folder(path, image_column) and not _is_tar(path)


def find_rows_access(data: str, revision: str | None = None) -> Access:
    """Returns what the rows of data may open: files in its own folder, or in the folders of its shards.

    Relative paths begin beside the (first) parquet file.
    """
    path = expand_home(data)
    if os.path.isdir(path):
        return find_folder_access(path)
    if names_shards(data):
        return find_access(*dict.fromkeys(os.path.dirname(file) for file in find_shards(data, revision)))
    return find_access(repository=data)


def _open_dataset(
    data: "datasets.Dataset", image_column: str | None, label_column: str | None, decoding: DecodingOptions
) -> DatasetSource:
    import datasets

    if not isinstance(data, datasets.Dataset):
        raise DataOptionError(f"data is a {type(data).__name__}; it must be a path, a name or a Dataset.")
    return DatasetSource(data, image_column, label_column, decoding)


def _read_name(data: str | os.PathLike[str]) -> str:
    """Returns the name of data, without passwords and signatures.

    Raises:
        DataOptionError: it is empty, or a command of the shell, as WebDataset takes them.
    """
    if os.fspath(data).startswith("pipe:"):
        raise DataOptionError(
            "--data is a command (pipe:), and none is run here: give the file or URL that it reads, such as "
            "https://..., s3://... or hf://..."
        )
    if not os.fspath(data):
        raise DataOptionError(
            "Give --data: your folder of images, parquet or tar files, a URL, or the name of a data set "
            "(it is empty; is a variable of the shell not set?)."
        )
    return hide_secrets(os.fspath(data))


def _open_shards(
    name: str, where: Place, columns: Columns, options: StreamOptions, decoding: DecodingOptions
) -> ShardStream:
    left_out = LeftOut()
    shards, features = find_split_shards(name, **where, left_out=left_out)
    access = find_access(*dict.fromkeys(os.path.dirname(shard) for shard in shards if "://" not in shard))
    stream = open_stream(shards, options, features=features, **columns, decoding=decoding.restrict_to(access))
    stream.left_out.update(left_out)
    return stream


def _open_rows(name: str, where: Place, columns: Columns, decoding: DecodingOptions) -> DatasetSource:
    left_out = LeftOut()
    rows = load_rows(name, **where, label_column=columns["label_column"], left_out=left_out)
    access = find_rows_access(name, where["revision"])
    source = DatasetSource(rows, **columns, options=decoding.restrict_to(access))
    source.left_out.update(left_out)
    return source


def _refuse_in_place(path: Path, name: str, stream: StreamOptions) -> None:
    """Refuses what is no folder, parquet file or data set of the Hub, and what applies to streams alone."""
    if stream.cache is not None:
        raise DataOptionError(f"cache applies to streams, and {name!r} is read in place: leave it out.")
    if os.path.isfile(path) and not has_ending(path, ".parquet"):
        raise DataOptionError(
            f"{str(path)!r} is a file: give the folder that it is in, of images or zip files, or parquet files."
        )


def _refuse_revision(path: Path, data: str, revision: str | None) -> None:
    if revision is not None and (os.path.exists(path) or "://" in data.replace("hf://", "")):
        raise DataOptionError(f"revision applies to data sets of the Hub, not to {data!r}: leave it out.")


def _is_tar(data: str | os.PathLike[str]) -> bool:
    """Returns whether `data` names tar files, or a folder of them. A folder with images is one of images."""
    path = expand_home(data)
    tars = [str(file) for file in list_shards(path) if not has_ending(file, ".parquet")]
    if not tars:
        return names_shards(str(data), (".tar",))
    if has_images(path):
        return False
    refuse_compressed(tars)
    return True


def _refuse_to_stream(path: Path, image_column: str | None, label_column: str | None) -> None:
    if is_saved_to_disk(path):
        raise DataOptionError(f"{str(path)!r} was written by save_to_disk and is read in place: leave streaming out.")
    if os.path.isdir(path) and not (_is_dataset_folder(path, image_column) or _is_tar(path)):
        _refuse_dataset_options(path, image_column=image_column, label_column=label_column, streaming=True)


def _is_dataset_folder(path: Path, image_column: str | None = None) -> bool:
    return is_saved_to_disk(path) or is_row_folder(path, image_column)


def _refuse_dataset_options(path: Path, **options: str | bool | None) -> None:
    for option, value in options.items():
        if value:
            FolderSource(path)  # which says what is there, if there are no images
            raise DataOptionError(f"{option} does not apply to {str(path)!r}, a folder of image files: leave it out.")
