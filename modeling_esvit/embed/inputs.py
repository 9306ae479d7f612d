# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the images that `embed` reads: folders, files, globs, URLs, lists of these, data sets, and images in memory."""

import glob
import io
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import datasets
import numpy as np
import torch
from PIL.Image import Image

from modeling_esvit.embed.engine import LoadedImage, load_image
from modeling_esvit.embed.lists import LIST_SUFFIXES, read_list
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.arrays import is_image_array
from modeling_esvit.images.data_errors import name_datasets_errors
from modeling_esvit.images.decoding import DEFAULT, DecodingOptions, Record
from modeling_esvit.images.folders import FoundImages, LeftOut, find_in_folder, find_matching
from modeling_esvit.images.hub import require_data_hub
from modeling_esvit.images.names import has_ending, show_name
from modeling_esvit.images.places import URL, find_local_file, name_instead
from modeling_esvit.images.row_folders import (
    RowFolder,
    find_folder_access,
    is_row_folder,
    is_saved_to_disk,
    list_saved_splits,
    load_parquet,
    load_saved_split,
)
from modeling_esvit.images.rows import (
    describe_columns,
    describe_image_lists,
    find_access,
    find_image_columns,
    find_named_files,
    is_bytes_or_path,
    leave_undecoded,
    read_cell,
)
from modeling_esvit.images.shards import COMPRESSED, choose_shards, match_files
from modeling_esvit.storage.identity import (
    Identity,
    add_named_files,
    identify_contents,
    identify_dataset,
    identify_files,
    is_url,
    join_identities,
)


ROWS = (Mapping, datasets.Dataset, datasets.IterableDataset)
INSTEAD = {torch.Tensor: "of a tensor, tensor.numpy() with channels last", io.IOBase: "of an open file, file.read()"}
ImageInput = str | os.PathLike[str] | bytes | Image | np.ndarray


class NoImagesError(EsViTError, ValueError):
    """Raised when an input names no image."""


class Reading(NamedTuple):
    """Says how inputs are read: which column and configuration of data sets, and how images are decoded."""

    image_column: str | None
    config_name: str | None
    decoding: DecodingOptions


class Images(Protocol):
    """Describes undecoded images by number, and what was left out beside them."""

    left_out: LeftOut

    def __len__(self) -> int: ...

    def name(self, index: int) -> str: ...

    def read(self, index: int) -> Record: ...

    def identify(self) -> Identity: ...


class ImageFiles:
    """Reads images by their paths and URLs."""

    def __init__(self, found: FoundImages, options: DecodingOptions = DEFAULT):
        self.paths, self.left_out, self.options = found.paths, found.left_out, options
        self.urls = name_urls(path for path in found.paths if is_url(path))

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.urls.get(self.paths[index]) or show_name(self.paths[index])

    def read(self, index: int) -> Record:
        return Record(self.paths[index], None, self.name(index), self.options)

    def identify(self) -> Identity:
        known = identify_files([self.urls.get(path, path) for path in self.paths])
        local = {name: find_local_file(path, self.options.access) for path, name in self.urls.items()}
        return add_named_files(known, {name: file for name, file in local.items() if file is not None})  # archives


def name_urls(urls: Iterable[str]) -> dict[str, str]:
    """Returns names without passwords and signatures; of URLs that differ in these alone, later ones have a number."""
    names: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for url in dict.fromkeys(urls):
        shown = show_name(url)
        counts[shown] += 1
        names[url] = shown if counts[shown] == 1 else f"{shown}#{counts[shown]}"
    return names


class DatasetImages:
    """Reads a column of images of a `datasets.Dataset`."""

    def __init__(self, dataset: Any, name: str, image_column: str | None = None, options: DecodingOptions = DEFAULT):
        """Takes the rows, the name of the data set, the column of images if there are several, and how to decode."""
        columns, described = find_image_columns(dataset.features), describe_columns(dataset.features)
        if image_column is None and len(columns) != 1:
            found = f"has the image columns {columns}" if columns else "has no column of images"
            raise NoImagesError(
                f"{name} {found}: name one of {described} with --image_column." + describe_image_lists(dataset.features)
            )
        self.column = image_column or columns[0]
        if self.column not in dataset.features:
            raise NoImagesError(f"{name} has no column {self.column!r}, only {described}.")
        if self.column not in columns and not is_bytes_or_path(dataset.features[self.column]):
            raise NoImagesError(f"The column {self.column!r} of {name} holds no images. The columns are {described}.")
        self.dataset = leave_undecoded(dataset.select_columns([self.column]), self.column)
        self.prefix, self.options, self.left_out = name, options, LeftOut()

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return f"{show_name(self.prefix)}[{index}]"

    def read(self, index: int) -> Record:
        return read_cell(self.dataset[index][self.column], None, self.options)._replace(name=self.name(index))

    def identify(self) -> Identity:
        named = find_named_files(self.dataset, self.column, self.options.access)
        return identify_dataset(self.dataset, self.name, lambda row: (self.read(row).get_source(), None), named)


class RecordsInMemory:
    """Reads records that lie in memory."""

    def __init__(self, records: Sequence[Record]):
        self.records, self.left_out = records, LeftOut()

    def __len__(self) -> int:
        return len(self.records)

    def name(self, index: int) -> str:
        return self.records[index].identity()

    def read(self, index: int) -> Record:
        return self.records[index]

    def identify(self) -> Identity:
        return identify_contents([*map(self.name, range(len(self)))], lambda row: self.records[row].get_source())


class ManyImages:
    """Reads several collections, one after the other."""

    def __init__(self, parts: Sequence[Images]):
        self.parts = parts
        self.ends = list(accumulate(len(part) for part in parts))
        self.left_out = LeftOut()
        for part in parts:
            self.left_out.update(part.left_out)

    def __len__(self) -> int:
        return self.ends[-1]

    def find(self, index: int) -> tuple[Images, int]:
        part = bisect_right(self.ends, index)
        return self.parts[part], index - (self.ends[part - 1] if part else 0)

    def name(self, index: int) -> str:
        part, own = self.find(index)
        return part.name(own)

    def read(self, index: int) -> Record:
        part, own = self.find(index)
        return part.read(own)

    def identify(self) -> Identity:
        return join_identities([part.identify() for part in self.parts])


def list_inputs(inputs: ImageInput | Iterable[ImageInput]) -> list[ImageInput]:
    """Returns one input, or several, as a list. Of arrays, `[H, W]` and `[H, W, C]` are one image.

    Raises:
        NoImagesError: they are none.
    """
    if isinstance(inputs, str | os.PathLike | bytes | Image):
        return [inputs]
    if isinstance(inputs, np.ndarray) and is_image_array(inputs):
        return [inputs]
    is_scalar = isinstance(inputs, np.ndarray) and inputs.ndim == 0
    if isinstance(inputs, (*ROWS, *INSTEAD)) or not isinstance(inputs, Iterable) or is_scalar:
        raise make_kind_error(inputs)
    return list(inputs)


def make_kind_error(value: Any) -> NoImagesError:
    """Returns the error for an input of a type that stands for no image."""
    kind = type(value).__name__
    advice = "; rows of a data set go through dataset.map(embedder, batched=True)" if isinstance(value, ROWS) else ""
    advice += next((f"; {what}" for each, what in INSTEAD.items() if isinstance(value, each)), "")
    return NoImagesError(f"A {kind} is no image: give a path, a PIL image, an array, or a list of these{advice}.")


def find_images(
    inputs: ImageInput | Iterable[ImageInput],
    image_column: str | None = None,
    options: DecodingOptions = DEFAULT,
    config_name: str | None = None,
) -> ManyImages:
    """Opens every input.

    Args:
        inputs: one or several, each a folder of images (any nesting), of parquet or zip files, or of
            `Dataset.save_to_disk`, a file or glob of images or of parquet files, a URL, a text file with a path or URL
            a line, the name of a data set on the Hub, `NAME` or `NAME:SPLIT`, or an image in memory: of Pillow, an
            array (see `convert_array`), or the bytes of a file. `FOLDER:SPLIT` is a split of a folder, or a subfolder.
        image_column: of data sets, where they have several.
        options: how images are decoded.
        config_name: of data sets on the Hub, where they have several.

    Raises:
        NoImagesError: an input names no image, or has several image columns to choose from.
    """
    listed = list_inputs(inputs)
    reading = Reading(image_column, config_name, options)
    found = [open_input(each, number, reading) for number, each in enumerate(listed)]
    for name, images in zip(listed, found, strict=True):
        if not len(images):
            left_out = f" (left out: {images.left_out.describe()})" if images.left_out else ""
            raise NoImagesError(f"{show_name(str(name))!r} holds no image in a format that is read here{left_out}.")
    if not found:
        raise NoImagesError("No image was named.")
    return ManyImages(found)


def load_input(images: Images, prepare: Callable[[Image], Any], index: int) -> LoadedImage:
    """Returns an image as `prepare` makes it for a model, or why there is none."""
    return load_image(images.read(index), prepare)


def open_input(given: ImageInput, number: int, reading: Reading) -> Images:
    """Opens the input of a number."""
    if isinstance(given, bytes | Image | np.ndarray):
        name = getattr(given, "filename", "") or f"image {number}"  # Pillow knows the file that it has opened
        return RecordsInMemory([Record(given, None, show_name(name), reading.decoding)])
    if not isinstance(given, str | os.PathLike):
        raise make_kind_error(given)
    return open_named(os.fspath(given), reading)


def open_named(name: str, reading: Reading) -> Images:
    """Opens what a path, a pattern, a URL or a name on the Hub stands for."""
    if not name:
        raise NoImagesError("An input is empty: give a folder, a file, a glob, a URL or the name of a data set.")
    if instead := name_instead(name):
        raise NoImagesError(f"{show_name(name)!r} is read by its name: give {instead}")
    if URL.match(name):
        return ImageFiles(FoundImages([name]), reading.decoding)
    path = Path(name)
    if path.is_dir() and list_saved_splits(path) is not None:
        raise NoImagesError(f"{name} is a data set of several splits: name the folder of one, as {path / 'train'}.")
    if path.is_dir():
        return open_folder(path, None, name, reading)
    if has_ending(path, ".parquet"):
        return open_parquet(name, reading)
    if path.is_file() and has_ending(path, LIST_SUFFIXES):
        return ImageFiles(FoundImages(list(read_list(path))), reading.decoding)
    if path.is_file() and has_ending(name, (".zip", ".tar", *COMPRESSED)):
        advice = "give the folder that it is in" if has_ending(path, ".zip") else "unpack it, and give the folder"
        raise NoImagesError(f"{name} is an archive, which embed does not open by its name: {advice}.")
    if path.is_file():
        return ImageFiles(FoundImages([name]), reading.decoding)
    folder, _, split = name.rpartition(":")
    if folder and Path(folder).is_dir() and "/" not in split:  # no URL of a store
        return open_split(Path(folder), split, name, reading)
    if glob.has_magic(name):
        return ImageFiles(find_matching(name), reading.decoding)
    if "://" in name:
        raise NoImagesError(
            f"{show_name(name)!r} is in a store, of which embed reads none: download its images, or give https:// URLs."
        )
    return open_hub(name, reading)


def name_errors(name: str) -> AbstractContextManager[None]:
    """Repeats what `datasets` says as a NoImagesError."""
    return name_datasets_errors(name, NoImagesError, NoImagesError)


def open_split(folder: Path, split: str, name: str, reading: Reading) -> Images:
    """Opens a split of a folder, which of a folder of images is a subfolder; without a name, the folder.

    Raises:
        NoImagesError: it has no such split; the reason is part of the message.
        DataOptionError, EmptySourceError: see `open_folder`.
    """
    column, place = reading.image_column, folder / split
    if not split or is_saved_to_disk(folder) or is_row_folder(folder, column):
        return open_folder(folder, split, name, reading)
    if not place.is_dir():
        raise NoImagesError(f"{name!r}: {str(place)!r} is no folder. A split of a folder of images is a subfolder.")
    return open_folder(place, None, name, reading)


def open_folder(path: Path, split: str | None, name: str, reading: Reading) -> Images:
    """Opens a folder of a data set, of which `split` is a part, or the images in a folder.

    Raises:
        NoImagesError: it has no such split; the reason is part of the message.
        DataOptionError, EmptySourceError: see `RowFolder` and `load_saved_split`.
    """
    is_saved = is_saved_to_disk(path)
    if not is_saved and not is_row_folder(path, reading.image_column):
        found = find_in_folder(path)
        found.paths = [str(path / file) for file in found.paths]
        return ImageFiles(found, reading.decoding)
    rows = reading.decoding.restrict_to(find_folder_access(path))
    if is_saved:
        return DatasetImages(load_saved_split(path, split), name, reading.image_column, rows)
    left_out = LeftOut()
    with name_errors(name):
        dataset = RowFolder(path, reading.config_name).load(split or "train", left_out)
    images = DatasetImages(dataset, name, reading.image_column, rows)
    images.left_out.update(left_out)
    return images


def open_parquet(pattern: str, reading: Reading) -> Images:
    """Opens the parquet files that a pattern matches.

    Raises:
        NoImagesError: it matches none, or they have no column of images.
    """
    left_out = LeftOut()
    files = choose_shards(match_files(pattern, left_out), left_out)
    if not files:
        raise NoImagesError(f"{pattern!r} matches no file.")
    rows = reading.decoding.restrict_to(find_access(*dict.fromkeys(os.path.dirname(file) for file in files)))
    with name_errors(pattern):
        dataset = load_parquet(files)
    images = DatasetImages(dataset, pattern, reading.image_column, rows)
    images.left_out.update(left_out)
    return images


def open_hub(name: str, reading: Reading) -> Images:
    """Opens `NAME` or `NAME:SPLIT` ("train" if none is named) on the Hub.

    Raises:
        NoImagesError: there is neither such a file nor such a data set; the reason is part of the message.
    """
    repository, _, split = name.partition(":")
    with name_errors(name):
        require_data_hub(repository)
        dataset = datasets.load_dataset(repository, reading.config_name, split=split or "train")
    rows = reading.decoding.restrict_to(find_access(repository=repository))
    return DatasetImages(dataset, name, reading.image_column, rows)
