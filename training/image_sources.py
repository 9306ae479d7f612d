# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Where images come from: a folder of files, or any `datasets` data set, in place or streamed.

    source = open_source("photographs/")               # any nesting, any format Pillow decodes
    source = open_source("shards/*.parquet")           # also: a folder of them, or of Dataset.save_to_disk
    source = open_source("org/name", streaming=True)   # a data set of the Hub

A source hands out undecoded records, in an order that is a function of (seed, epoch); `image_decoding.decode` makes
the RGB image of a record.
"""

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, Union

import numpy as np

from image_decoding import Record, image_extensions
from views import Draws, keyed_generator


if TYPE_CHECKING:
    import datasets


class DataOptionError(ValueError):
    """An option does not fit the data it is meant for."""


class DataNotFoundError(FileNotFoundError):
    """There is no data where `data` points to."""


class EmptySourceError(ValueError):
    """The data exists but holds no image."""


class StreamTooShortError(ValueError):
    """A stream ended before the number of samples that it was said to have."""


def epoch_order(num_images: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation of `range(num_images)` in which an epoch visits the images: position -> index."""
    return keyed_generator(seed, epoch, draws=Draws.ORDER).permutation(num_images)


class FolderSource:
    """All images below a folder, sorted by path. A class is a first-level subfolder.

    Hidden files and folders are left out; links are followed, and no folder is read twice. There are no classes
    unless every image lies in a subfolder.

    Raises:
        DataNotFoundError: `root` is not a folder.
        EmptySourceError: no file below it has the extension of a format that Pillow decodes.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataNotFoundError(f"{str(root)!r} is not a folder.")
        paths = sorted(_image_paths(self.root))
        if not paths:
            raise EmptySourceError(
                f"no image below {str(root)!r}: no file name ends in .jpg, .png, .tiff, .webp or any other of the "
                f"{len(image_extensions())} extensions that Pillow decodes."
            )
        # Arrays, not lists: worker processes share their pages, whereas reading a list copies them (reference counts).
        self._paths = np.array([os.fsencode(path) for path in paths])
        self.has_labels = all(os.sep in path for path in paths)
        self.class_names: list[str] | None = None
        if self.has_labels:
            names, self._labels = np.unique([path.split(os.sep)[0] for path in paths], return_inverse=True)
            self.class_names = names.tolist()

    def __len__(self) -> int:
        return len(self._paths)

    def items(self, seed: int, epoch: int) -> Iterator[int]:
        """The indices of all images, in the order of the epoch."""
        return iter(epoch_order(len(self), seed, epoch).tolist())

    def read(self, item: int) -> Record:
        """The record of the image with index `item`, not opened yet."""
        path = os.fsdecode(self._paths[item])
        label = int(self._labels[item]) if self.has_labels else None
        return Record(str(self.root / path), label, path)


def _image_paths(root: Path) -> Iterator[str]:
    """Paths of the images below `root`, relative to it. A folder that cannot be listed is an OSError."""

    def refuse(error: OSError) -> None:
        raise error

    visited = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=refuse):
        if os.path.realpath(folder) in visited:
            subfolders.clear()
            continue
        visited.add(os.path.realpath(folder))
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        prefix = "" if folder == str(root) else os.path.relpath(folder, root)
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in image_extensions():
                yield os.path.join(prefix, name)


class DatasetSource:
    """A map-style `datasets.Dataset`, read in place.

    Raises:
        DataOptionError: the columns cannot be told (see `ImageColumns.find`).
        EmptySourceError: it has no rows.
    """

    def __init__(
        self, dataset: "datasets.Dataset", image_column: str | None = None, label_column: str | None = None
    ) -> None:
        if len(dataset) == 0:
            raise EmptySourceError("the data set has no rows.")
        self._columns = ImageColumns.find(dataset.features, image_column, label_column)
        self._dataset = self._columns.select(dataset)
        self.has_labels, self.class_names = self._columns.label is not None, self._columns.class_names

    def __len__(self) -> int:
        return len(self._dataset)

    def items(self, seed: int, epoch: int) -> Iterator[int]:
        """The indices of all rows, in the order of the epoch."""
        return iter(epoch_order(len(self), seed, epoch).tolist())

    def read(self, item: int) -> Record:
        """The record of row `item`."""
        record = fetched(self._columns.record(self._dataset[item]))
        return record._replace(name=f"row {item} ({record.name})" if record.name else f"row {item}")


class StreamSource:
    """A streamed `datasets.IterableDataset`, shuffled by its own buffer of `shuffle_buffer` records.

    The simple form: every process reads the whole stream, and decodes only its own part. (At the end of each pass over
    parquet files `datasets` 5.2 rests for 5 seconds.)

    Raises:
        DataOptionError: the length is neither given by `samples_per_epoch` nor recorded in the data set, or the
            columns cannot be told (see `ImageColumns.find`).
    """

    def __init__(
        self,
        dataset: "datasets.IterableDataset",
        image_column: str | None = None,
        label_column: str | None = None,
        samples_per_epoch: int | None = None,
        shuffle_buffer: int = 1000,
    ) -> None:
        if dataset.features is None:
            raise DataOptionError(
                "the stream does not declare its columns; give them where it is made, for instance "
                "IterableDataset.from_generator(..., features=Features({'image': Image()}))."
            )
        self._columns = ImageColumns.find(dataset.features, image_column, label_column)
        self._dataset = self._columns.select(dataset)
        self.has_labels, self.class_names = self._columns.label is not None, self._columns.class_names
        self._length = _recorded_length(dataset) if samples_per_epoch is None else samples_per_epoch
        self._shuffle_buffer = shuffle_buffer

    def __len__(self) -> int:
        return self._length

    def items(self, seed: int, epoch: int) -> Iterator[Record]:
        """The records of the stream, in the order of the epoch.

        Raises:
            StreamTooShortError: it ended before `len(self)` records.
        """
        stream_seed = int(keyed_generator(seed, epoch, draws=Draws.ORDER).integers(2**63))
        count = 0
        for row in self._dataset.shuffle(seed=stream_seed, buffer_size=self._shuffle_buffer):
            yield self._columns.record(row)
            count += 1
        if count < len(self):
            raise StreamTooShortError(
                f"the stream ended after {count} samples, but an epoch has {len(self)}: "
                f"set samples_per_epoch to {count} or less."
            )

    @staticmethod
    def read(item: Record) -> Record:
        """The record itself, which the stream already had to read."""
        return fetched(item)


def fetched(record: Record) -> Record:
    """The record with its content, if `datasets` names it by a URL: of a remote file, or of a member of an archive."""
    if isinstance(record.image, bytes) or "://" not in record.image:
        return record
    from datasets.utils.file_utils import xopen

    with xopen(record.image, "rb") as file:
        return record._replace(image=file.read())


def _recorded_length(dataset: "datasets.IterableDataset") -> int:
    splits = dataset.info.splits or {}
    split = splits.get(str(dataset.split))
    if split is None or not split.num_examples:
        raise DataOptionError("the stream does not say how many samples it has: set samples_per_epoch to their number.")
    return split.num_examples


ImageSource: TypeAlias = FolderSource | DatasetSource | StreamSource


class ImageColumns(NamedTuple):
    """The columns of a data set that hold the image and, where there is one, its class."""

    image: str
    label: str | None
    class_names: list[str] | None

    @classmethod
    def find(cls, features: "datasets.Features", image: str | None, label: str | None) -> "ImageColumns":
        """The columns named, or else the only image column and the only class (or integer "label") column.

        Raises:
            DataOptionError: a named column does not exist, the labels are not integers, or there is not exactly one
                image column to choose.
        """
        import datasets

        _refuse_unknown_columns(features, image_column=image, label_column=label)
        images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
        classes = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
        if image is None and len(images) != 1:
            raise DataOptionError(f"image_column must be one of the columns {list(features)}; images are in {images}.")
        if label is None and len(classes) == 1:
            label = classes[0]
        if label is None and _is_integer(features.get("label")):
            label = "label"
        if label is not None and not (label in classes or _is_integer(features[label])):
            raise DataOptionError(f"label_column {label!r} holds {features[label]}; labels are integers or ClassLabel.")
        return cls(image or images[0], label, features[label].names if label in classes else None)

    def select(self, dataset: Any) -> Any:
        """The data set with these columns only, images as bytes or path: it must not decode, we do."""
        import datasets

        columns = [self.image] if self.label is None else [self.image, self.label]
        dataset = dataset.with_format(None).select_columns(columns)
        return dataset.cast_column(self.image, datasets.Image(decode=False))

    def record(self, row: dict[str, Any]) -> Record:
        """The record of a row of `select(dataset)`. A null image becomes empty bytes, which `decode` refuses."""
        image = row[self.image] or {"bytes": None, "path": None}
        content = image["bytes"] or image["path"] or b""
        return Record(content, None if self.label is None else row[self.label], image["path"])


def _refuse_unknown_columns(features: "datasets.Features", **columns: str | None) -> None:
    for option, column in columns.items():
        if column is not None and column not in features:
            raise DataOptionError(f"{option} {column!r} does not exist; the columns are {list(features)}.")


def _is_integer(feature: Any) -> bool:
    return "int" in getattr(feature, "dtype", "")


def open_source(
    data: Union[str, os.PathLike[str], "datasets.Dataset", "datasets.IterableDataset", None],
    *,
    split: str | None = None,
    config_name: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    streaming: bool = False,
    samples_per_epoch: int | None = None,
    shuffle_buffer: int = 1000,
) -> ImageSource:
    """The source of images that `data` names.

    Args:
        data: A folder of images; a folder or glob of parquet files (in the folder itself or in its `data` subfolder);
            a folder written by `save_to_disk`; "namespace/name" of a Hub data set; or a `datasets` object.
        split: Of a data set ("train" if None); of a folder of images, one of its subfolders (itself if None).
        config_name: Of a data set with several configurations.
        image_column, label_column: See `ImageColumns.find`.
        streaming: Read parquet files and Hub data sets as a stream: nothing is stored on disk.
        samples_per_epoch, shuffle_buffer: See `StreamSource`.

    Raises:
        DataNotFoundError, EmptySourceError, DataOptionError: see their descriptions.
    """
    if data is None:
        raise DataOptionError(
            "no data given: pass --data with a folder of images, a glob of parquet files, or the name of a data set "
            "on the Hub such as ILSVRC/imagenet-1k."
        )
    if isinstance(data, (str, os.PathLike)):
        path = Path(data).expanduser()
        if path.is_file() and path.suffix != ".parquet":
            raise DataOptionError(
                f"{str(path)!r} is a file: give the folder of images that it is in, or parquet files."
            )
        if path.is_dir() and not _is_dataset_folder(path):
            _refuse_dataset_options(path, image_column=image_column, label_column=label_column, streaming=streaming)
            return FolderSource(path if split is None else path / split)
        data = _load_dataset(path, split, config_name, streaming)
    import datasets

    if isinstance(data, datasets.Dataset):
        return DatasetSource(data, image_column, label_column)
    if isinstance(data, datasets.IterableDataset):
        return StreamSource(data, image_column, label_column, samples_per_epoch, shuffle_buffer)
    raise DataOptionError(
        f"data is a {type(data).__name__}; it must be a path, a name, a Dataset or an IterableDataset."
    )


def _is_dataset_folder(path: Path) -> bool:
    return _is_saved_to_disk(path) or any(path.glob("*.parquet")) or any(path.glob("data/*.parquet"))


def _is_saved_to_disk(path: Path) -> bool:
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def _refuse_dataset_options(path: Path, **options: str | bool | None) -> None:
    for option, value in options.items():
        if value:
            raise DataOptionError(f"{option} does not apply to {str(path)!r}, a folder of image files: leave it out.")


def _load_dataset(path: Path, split: str | None, config_name: str | None, streaming: bool) -> Any:
    """The split of the data set that `path` names: saved to disk, parquet files, or on the Hub."""
    import datasets

    if _is_saved_to_disk(path):
        return _split_saved_to_disk(path, split, streaming)
    if path.is_dir():
        arguments: dict[str, Any] = {"path": str(path.resolve())}
    elif path.suffix == ".parquet":
        arguments = {"path": "parquet", "data_files": _matching_files(path)}
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)):
        arguments = {"path": str(path)}
    else:
        raise DataNotFoundError(
            f"{str(path)!r} does not exist: it is neither a folder of images nor a folder or glob of .parquet files "
            f"nor the 'namespace/name' of a data set on the Hub."
        )
    try:
        return datasets.load_dataset(**arguments, name=config_name, split=split or "train", streaming=streaming)
    except (FileNotFoundError, ConnectionError) as error:
        raise DataNotFoundError(
            f"{str(path)!r} is no existing folder, and as a data set of the Hub: {error}"
        ) from error
    except ValueError as error:  # an unknown split or configuration; the message lists those there are
        raise DataOptionError(f"{str(path)!r}: {error}") from error


def _matching_files(pattern: Path) -> list[str]:
    files = sorted(glob.glob(str(pattern), recursive=True))
    if not files:
        raise DataNotFoundError(f"no file matches {str(pattern)!r}.")
    return files


def _split_saved_to_disk(path: Path, split: str | None, streaming: bool) -> Any:
    import datasets

    if streaming:
        raise DataOptionError(f"{str(path)!r} was written by save_to_disk and is read in place: leave streaming out.")
    loaded = datasets.load_from_disk(str(path))
    if isinstance(loaded, datasets.Dataset):
        return loaded
    if (split or "train") not in loaded:
        raise DataOptionError(f"{str(path)!r} has no split {split or 'train'!r}; it has {list(loaded)}.")
    return loaded[split or "train"]
