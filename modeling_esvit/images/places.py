# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Opens what an image is named by: a path, a URL, or a member of an archive such as `zip://a.jpg::photographs.zip`.

Names that a user typed, or that a folder has, are opened as they are. Those in the rows of a data set are a stranger's:
they lead to files of the data set alone, unless the user allows more.
"""

import os
import re
import stat
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import BytesIO
from typing import BinaryIO, NamedTuple

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.download import download
from modeling_esvit.images.names import has_ending, show_name
from modeling_esvit.images.read_ahead import abandonable
from modeling_esvit.storage.url_secrets import escape_logins


URL = re.compile(r"https?://", re.IGNORECASE)
FILE_URL = re.compile(r"(file|local)://", re.IGNORECASE)
HUB_PAGE = re.compile(
    r"(?:https?://(?:huggingface\.co|hf\.co)/|hf://)datasets/([\w.-]+/[\w.-]+?)(?:@(?:refs/\w+/)?[^/]*|/tree/[^/]*)?/?"
)
ARCHIVES = ("zip", "tar", "gzip", "bz2", "xz", "zstd")
IN_ARCHIVE = re.compile(rf"(?:{'|'.join(ARCHIVES)})://")
OPEN_ZIPS = 4  # whose lists of members each process keeps
IRREGULAR = "is no regular file, but a pipe or a device"
LONGEST_PATH = 4096  # characters, on Linux; elsewhere less
NON_BLOCKING = getattr(os, "O_NONBLOCK", 0)  # Windows has none


class PlaceError(EsViTError, OSError):
    """Raised when what an image is named by is not opened: it is no regular file, or lies where it must not."""


def is_no_path(text: str) -> bool:
    """Returns whether a text is longer than paths are, as images in base64 are; URLs may be longer."""
    return "://" not in text and len(text) > LONGEST_PATH


class Place(NamedTuple):
    """Names a file by its path or URL, or members of it if it is an archive, the inner one first."""

    members: str
    file: str

    @classmethod
    def split(cls, place: str, exists: Callable[[str], bool] = os.path.exists) -> "Place":
        """Splits what an image is named by, such as `zip://a.jpg::photographs.zip`.

        Names may have `::` in them, too: the file is the longest path that `exists`, or else behind the last `::`.
        """
        if URL.match(place):
            return cls("", place)
        starts = [*([] if IN_ARCHIVE.match(place) else [0]), *(found.end() for found in re.finditer("::", place))]
        known = (start for start in starts[:-1] if exists(FILE_URL.sub("", place[start:])))
        start = next(known, max(starts, default=0))
        return cls(place[: max(start - 2, 0)], place[start:])

    @property
    def is_local(self) -> bool:
        return "://" not in self.file

    def join(self) -> str:
        """Returns the place as one text, as fsspec reads it."""
        return f"{self.members}::{self.file}" if self.members else self.file

    def find_zip(self) -> zipfile.ZipFile | None:
        """Returns the open zip file that the place is a member of; None if that is no local one, or has no such member.

        Raises:
            zipfile.BadZipFile, ValueError, NotImplementedError, OSError: see `open_zip`.
        """
        if not (self.is_local and self.members and has_ending(self.file, ".zip")):
            return None
        archive = open_zip(self.file)
        return archive if self.member in archive.NameToInfo else None

    @property
    def member(self) -> str:
        return self.members.removeprefix("zip://")


@dataclass(frozen=True)
class Access:
    """Says what may be opened.

    Attributes:
        folders: Files in these, at any depth, the first of which relative paths begin in; None: everything, URLs too.
        repository: A data set of the Hub whose files may be opened, too.
    """

    folders: tuple[str, ...] | None = None
    repository: str | None = None

    def locate(self, place: str) -> Place:
        """Returns what a place names, with the path that a relative one means.

        Raises:
            PlaceError: It may not be opened, or cannot be the name of a file.
        """
        if "\0" in place:
            raise PlaceError(f"{show_name(place)} has a zero byte in it, and so is no name of a file")
        if is_no_path(place):
            raise PlaceError(f"a text of {len(place)} characters is no path; if it is base64, decode it into bytes")
        if self.folders is None:
            found = Place.split(place) if "://" in place else Place("", place)
            return found._replace(file=FILE_URL.sub("", found.file))
        folder = self.folders[0] if self.folders else ""
        members, file = Place.split(place, lambda name: os.path.exists(os.path.join(folder, name)))
        file = FILE_URL.sub("", file)
        found = Place(members, file if "://" in file else os.path.join(folder, file))
        if not (self._has(found.file) and _is_in_archive(found)):
            raise PlaceError(
                f"the row names {show_name(place)}, which is no file of the data set; if you trust the data set, "
                "--allow_paths opens it"
            )
        return found

    def _has(self, place: str) -> bool:
        if "://" in place:
            return self.repository is not None and place.startswith(
                (f"hf://datasets/{self.repository}@", f"hf://datasets/{self.repository}/")
            )
        path = os.path.realpath(place)
        return any(is_inside(path, folder) for folder in self._real_folders)

    @cached_property
    def _real_folders(self) -> list[str]:
        return [os.path.realpath(folder) for folder in self.folders or ()]


def _is_in_archive(place: Place) -> bool:
    """Returns whether a place is a file, or a member of archives alone, and of nothing else that fsspec chains."""
    if all(link.partition("://")[0] in ARCHIVES for link in place.members.split("::") if link):
        return True
    with suppress(zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return place.find_zip() is not None
    return False


ANYTHING, NOTHING = Access(), Access(folders=())


def is_inside(path: str, folder: str) -> bool:
    """Returns whether a real path is a folder or lies below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def find_local_file(place: str, access: Access) -> str | None:
    """Returns the local file that a place names, or whose member it names; None if there is none, or none to open."""
    try:
        found = access.locate(place)
    except PlaceError:
        return None
    return found.file if found.is_local else None


def name_instead(url: str) -> str | None:
    """Returns what to give in place of a URL of this machine, or of a data set on the Hub; None for others."""
    if FILE_URL.match(url):
        return FILE_URL.sub("", url)
    page = HUB_PAGE.fullmatch(url)
    return page and page[1]


def open_place(place: str, access: Access, most_bytes: int) -> BinaryIO:
    """Opens the file of an image.

    Args:
        place: A path, a URL, or a member of an archive.
        access: What may be opened.
        most_bytes: How much is read from a URL or an archive.

    Raises:
        PlaceError: It may not be opened, is no regular file, or is longer.
        OSError: It does not exist, or cannot be read.
    """
    found = access.locate(place)
    if found.is_local and not found.members:
        return open_regular_file(found.file)
    is_url = not found.members and URL.match(found.file)
    content = download(escape_logins(found.file), most_bytes) if is_url else read_member(found, most_bytes)
    return BytesIO(content)


def open_regular_file(path: str) -> BinaryIO:
    """Opens a file; a pipe or a device, which may have no end, is none.

    Raises:
        PlaceError: It is no regular file.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | NON_BLOCKING))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise PlaceError(f"it {IRREGULAR}")
    return file


def check_regular(path: str) -> os.stat_result:
    """Returns what the system says of a file that a library opens, which would wait for ever for a pipe.

    Raises:
        PlaceError: It is no regular file.
        OSError: It does not exist.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise PlaceError(f"{path} {IRREGULAR}")
    return found


@abandonable()
def read_member(place: Place, most_bytes: int) -> bytes:
    """Returns a member of an archive, or a file of a store that fsspec knows.

    Raises:
        PlaceError: It is longer than `most_bytes`, or its archive is no regular file.
    """
    from datasets.utils.file_utils import xopen

    if place.is_local:
        open_regular_file(place.file).close()  # the library would wait for ever for a pipe
    known = place.find_zip()
    with xopen(escape_logins(place.join()), "rb") if known is None else known.open(place.member) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise PlaceError(f"it has more than {most_bytes} bytes")
    return content


def open_zip(path: str) -> zipfile.ZipFile:
    """Returns the zip file at a local path, open; it stays open for the next that asks for it.

    Raises:
        zipfile.BadZipFile, ValueError, NotImplementedError: it is no zip file, or damaged.
        OSError: it cannot be opened, or is no regular file.
    """
    found = check_regular(path)
    # A process that is forked would share the position in the file with its parent.
    return _list_zip(path, found.st_size, found.st_mtime_ns, os.getpid())


@lru_cache(maxsize=OPEN_ZIPS)
def _list_zip(path: str, size: int, time: int, process: int) -> zipfile.ZipFile:
    """Opens a zip file. Reading the list of its members for each of them would take seconds where it is long."""
    return zipfile.ZipFile(path)
