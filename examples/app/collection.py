# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Holds the photographs that the page searches in: the bundled ones, or those of a folder."""

import itertools
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import skimage.data
from PIL import Image

from modeling_esvit.embed.inputs import ImageFiles, ManyImages, RecordsInMemory
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding import DecodingOptions, Record, decode
from modeling_esvit.images.folders import FoundImages, find_in_folder
from modeling_esvit.images.names import show_name


# Part of scikit-image's wheel, so that nothing is downloaded.
PHOTOGRAPHS = (
    "astronaut brick camera cat cell clock coffee coins grass gravel hubble_deep_field immunohistochemistry moon page "
    "retina rocket text"
).split()
PARTS = 5  # squares of each bundled photograph that can be found beside the whole: four corners and the middle
MOST_PIXELS = 1024  # longest side of an image on the page; larger ones are reduced
# Of a file of a stranger. Decoding takes at most 6 bytes a pixel beside it, see `modeling_esvit/images/decoding.py`.
DECODING = DecodingOptions(max_pixels=50_000_000)

Box = tuple[int, int, int, int]  # left, upper, right, lower


class EmptyFolderError(EsViTError, OSError):
    """Raised when a folder has no photograph to search in."""


class NoPhotographError(EsViTError, ValueError):
    """Raised when a visitor names no photograph of the collection."""


class Entry(NamedTuple):
    """Names what can be found: a photograph, or a part of it."""

    photograph: str
    caption: str
    box: Box | None = None


def read_photograph(path: str, name: str | None = None, options: DecodingOptions = DECODING) -> Image.Image:
    """Reads an RGB image, reduced to at most `MOST_PIXELS` on each side.

    Raises:
        UnreadableImageError: the file cannot be decoded, or has more pixels than the page takes.
    """

    def sufficient(size: tuple[int, int]) -> tuple[int, int]:
        scale = min(MOST_PIXELS / max(size), 1)
        return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)

    image = decode(Record(path, None, name or path.rpartition("/")[2], options), sufficient)
    if max(image.size) > MOST_PIXELS:
        image = image.resize(sufficient(image.size), Image.Resampling.BICUBIC)
    return image


def load_bundled() -> Iterator[tuple[str, Image.Image]]:
    """Yields a stereo pair, which no model of the demo was trained on, and single photographs, with their names."""
    left, right, _ = skimage.data.stereo_motorcycle()
    yield "motorcycle, left", Image.fromarray(left)
    yield "motorcycle, right", Image.fromarray(right)
    for name in PHOTOGRAPHS:
        yield name.replace("_", " "), Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def list_parts(name: str, size: tuple[int, int]) -> Iterator[Entry]:
    """Yields a photograph of a size, and squares of half its shorter side."""
    yield Entry(name, name)
    width, height = size
    side = max(min(size) // 2, 1)
    right, lower = width - side, height - side
    corners = [(0, 0), (right, 0), (0, lower), (right, lower), (right // 2, lower // 2)]
    for number, (x, y) in enumerate(corners[:PARTS], 1):
        yield Entry(name, f"{name}, part {number}", (x, y, x + side, y + side))


class Bundled:
    """Holds the photographs that come with scikit-image, and parts of them."""

    decoding = DECODING

    def describe(self, readable: int | None = None) -> str:
        return "the bundled photographs, and parts of them"

    @cached_property
    def images(self) -> dict[str, Image.Image]:
        return dict(load_bundled())

    @cached_property
    def entries(self) -> list[Entry]:
        return [part for name, image in self.images.items() for part in list_parts(name, image.size)]

    def open(self) -> RecordsInMemory:
        """Returns the images of the entries, for `embed`."""
        return RecordsInMemory([Record(read_entry(self, entry), None, entry.caption) for entry in self.entries])

    def read(self, name: str) -> Image.Image:
        return self.images[name]


class Folder:
    """Holds the names of the images below a folder; their pixels stay on the disk."""

    def __init__(self, root: Path, decoding: DecodingOptions = DECODING) -> None:
        """Finds the images.

        Raises:
            EmptyFolderError: there is none that is read here, or no folder.
        """
        if not root.is_dir():
            raise EmptyFolderError(f"--photographs {root} is no folder.")
        found = find_in_folder(root)
        if not found.paths:
            raise EmptyFolderError(f"--photographs {root} holds no image: {found.left_out.describe() or 'nothing'}.")
        self.decoding, self.left_out = decoding, found.left_out
        self.root, self.paths = root, {show_name(path): path for path in found.paths}

    def describe(self, readable: int | None = None) -> str:
        """Says how many photographs there are, or how many of them can be read."""
        count = len(self.paths) if readable is None else readable
        missing = len(self.paths) - count
        more = f" ({missing:,} more cannot be read)" if missing else ""
        return f"the {count:,} photographs of {self.root.resolve().name}{more}"

    @property
    def entries(self) -> list[Entry]:
        return [Entry(name, name) for name in self.paths]

    def open(self) -> ManyImages:
        """Returns the images of the entries, for `embed`."""
        paths = [str(self.root / path) for path in self.paths.values()]
        return ManyImages([ImageFiles(FoundImages(paths, self.left_out), self.decoding)])

    def read(self, name: str) -> Image.Image:
        """Reads a photograph.

        Raises:
            UnreadableImageError: it cannot be decoded.
        """
        return read_photograph(str(self.root / self.paths[name]), name, self.decoding)


Collection = Bundled | Folder


def find_names(names: list[str], part: str, most: int) -> list[str]:
    """Returns at most so many of the names that have a text in them, in capitals or not."""
    return list(itertools.islice((name for name in names if part.casefold() in name.casefold()), most))


def find_name(names: list[str], text: str) -> str:
    """Returns the name that a visitor has typed, in whole or a part that no other has.

    Raises:
        NoPhotographError: there is none, or there are several.
    """
    if text in names:
        return text
    found = find_names(names, text, 2) if text else []
    if not found:
        raise NoPhotographError(f"No photograph has {text!r} in its name." if text else "Type a part of a name.")
    if len(found) > 1:
        raise NoPhotographError(f"Several photographs have {text!r} in their names, such as {' and '.join(found)}.")
    return found[0]


def read_entry(collection: Collection, entry: Entry) -> Image.Image:
    """Returns the image of an entry.

    Raises:
        UnreadableImageError: it cannot be decoded.
    """
    image = collection.read(entry.photograph)
    return image if entry.box is None else image.crop(entry.box)
