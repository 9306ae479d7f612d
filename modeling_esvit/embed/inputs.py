# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the images that `embed` reads: folders, files, globs, URLs, lists of these, and data sets, in a fixed order."""

import functools
import glob
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import datasets
import pyarrow as pa
import requests
from PIL.Image import Image
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from modeling_esvit.embed.engine import LoadedImage, load_image
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding import Record, UnreadableImageError, list_image_extensions
from modeling_esvit.images.read_ahead import abandonable
from modeling_esvit.storage.identity import Identity, identify_dataset, identify_files, join_identities


URL = re.compile(r"https?://")
LIST_SUFFIXES = (".txt", ".lst")
RETRY = Retry(5, backoff_factor=0.2, status_forcelist=(429, 500, 502, 503, 504))
TIMEOUT = 30  # seconds


class NoImagesError(EsViTError, ValueError):
    """Raised when an input names no image."""


class Images(Protocol):
    """Describes undecoded images by number."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str: ...

    def read(self, index: int) -> Record: ...

    def identify(self) -> Identity: ...


class ImageFiles:
    """Reads images by their paths and URLs."""

    def __init__(self, names: Sequence[str]):
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def read(self, index: int) -> Record:
        name = self.names[index]
        return Record(download(name) if URL.match(name) else name, None, name)

    def identify(self) -> Identity:
        return identify_files(self.names)


class DatasetImages:
    """Reads a column of images of a `datasets.Dataset`."""

    def __init__(self, dataset: Any, name: str, image_column: str | None = None):
        columns = [column for column, kind in dataset.features.items() if isinstance(kind, datasets.Image)]
        if image_column is None and len(columns) != 1:
            found = (
                f"has the image columns {columns}"
                if columns
                else f"has no column of images in {list(dataset.features)}"
            )
            raise NoImagesError(f"{name} {found}: name one with --image_column.")
        self.column = image_column or columns[0]
        if self.column not in dataset.features:
            raise NoImagesError(f"{name} has no column {self.column!r}, only {list(dataset.features)}.")
        dataset = dataset.with_format(None).select_columns([self.column])
        try:
            self.dataset = dataset.cast_column(self.column, datasets.Image(decode=False))
        except (pa.ArrowException, TypeError) as error:
            raise NoImagesError(f"The column {self.column!r} of {name} holds no images: {error}.") from error
        self.prefix = name

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return f"{self.prefix}[{index}]"

    def read(self, index: int) -> Record:
        image = self.dataset[index][self.column] or {"bytes": None, "path": None}
        return Record(image["bytes"] or image["path"] or b"", None, self.name(index))

    def identify(self) -> Identity:
        return identify_dataset(self.dataset, self.name, lambda row: (self.read(row).image, None))


class ManyImages:
    """Reads several collections, one after the other."""

    def __init__(self, parts: Sequence[Images]):
        self.parts = parts
        self.ends = list(accumulate(len(part) for part in parts))

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


@abandonable()
def download(url: str) -> bytes:
    """Returns the bytes behind a URL. Busy and failing servers are asked again.

    Raises:
        UnreadableImageError: the server still fails, or has no such file.
    """
    try:
        response = http_session().get(url, timeout=TIMEOUT)
        response.raise_for_status()
    except requests.RequestException as error:
        raise UnreadableImageError(f"{url}: {error}") from error
    return response.content


@functools.cache
def http_session() -> requests.Session:
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=RETRY, pool_maxsize=64))
    return session


def find_images(inputs: Sequence[str], image_column: str | None = None) -> ManyImages:
    """Opens every input.

    Args:
        inputs: each a folder of images (any nesting) or of `Dataset.save_to_disk`, a file, a glob, a URL, a text file
            with a path or URL a line, or the name of a data set on the Hub, `NAME` or `NAME:SPLIT`.
        image_column: of data sets, where they have several.

    Raises:
        NoImagesError: an input names no image, or has several image columns to choose from.
    """
    found = [open_input(name, image_column) for name in inputs]
    for name, images in zip(inputs, found, strict=True):
        if not len(images):
            raise NoImagesError(f"{name!r} holds no image in a format that Pillow reads.")
    if not found:
        raise NoImagesError("No image was named.")
    return ManyImages(found)


def load_input(images: Images, prepare: Callable[[Image], Any], index: int) -> LoadedImage:
    """Returns an image as `prepare` makes it for a model, or why there is none."""
    try:
        record = images.read(index)
    except UnreadableImageError as error:  # nothing came from its URL
        return LoadedImage(images.name(index), None, None, str(error))
    return load_image(record, prepare)


def open_input(name: str, image_column: str | None) -> Images:
    if not name:
        raise NoImagesError("An input is empty: give a folder, a file, a glob, a URL or the name of a data set.")
    path = Path(name)
    if path.is_dir() and (path / "dataset_info.json").is_file():
        return DatasetImages(datasets.load_from_disk(name), name, image_column)
    if path.is_dir() and (path / "dataset_dict.json").is_file():
        raise NoImagesError(f"{name} is a data set of several splits: name the folder of one, as {path / 'train'}.")
    if path.is_dir():
        return ImageFiles(sorted(str(file) for file in path.rglob("*") if is_image(file)))
    if path.is_file() and path.suffix in LIST_SUFFIXES:
        return ImageFiles(list(read_lines(path)))
    if path.is_file() or URL.match(name):
        return ImageFiles([name])
    if glob.has_magic(name):
        return ImageFiles(sorted(file for file in glob.glob(name, recursive=True) if is_image(Path(file))))
    return DatasetImages(load_split(name), name, image_column)


def is_image(path: Path) -> bool:
    return path.suffix.lower() in list_image_extensions() and path.is_file()


def read_lines(path: Path) -> Iterator[str]:
    """Yields the entries of a list. Its paths are relative to its folder; empty lines and comments (#) are left out.

    Raises:
        NoImagesError: it is not text in UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise NoImagesError(f"The list {path} is not text in UTF-8 ({error}).") from error
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.strip() if URL.match(line) else str(path.parent / line.strip())


def load_split(name: str) -> Any:
    """Loads `NAME` or `NAME:SPLIT` ("train" if none is named) from the Hub.

    Raises:
        NoImagesError: there is neither such a file nor such a data set; the reason is part of the message.
    """
    repository, _, split = name.partition(":")
    try:
        return datasets.load_dataset(repository, split=split or "train")
    except (OSError, ValueError) as error:
        raise NoImagesError(
            f"{name!r} is neither a file, a folder, a pattern nor a data set that can be loaded: {error}"
        ) from error
