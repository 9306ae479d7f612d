# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads text files that list images, whatever their encoding and line ends."""

import codecs
import os
import re
from collections.abc import Iterator
from pathlib import Path

from modeling_esvit.images.places import Place


LIST_SUFFIXES = (".txt", ".lst")
LINE_END = re.compile("\r\n|\n|\r|\0")  # zeros are what `find -print0` writes
# What a file begins with that says its encoding; the longer ones first.
MARKS = (
    *((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be")),
    *((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")),
)


def read_list(path: Path) -> Iterator[str]:
    """Yields the entries of a list: paths, which are relative to its folder, URLs, and members of archives at either.

    Empty lines and comments (#) are left out, unless a file has that name. The encoding is what the file begins with;
    else UTF-16 if there are zero bytes; else that of the names of files, and for a path that does not exist then also
    Windows-1252.
    """
    for line in LINE_END.split(decode_list(path.read_bytes())):
        entry = line.strip(" \t")
        if entry and os.path.isfile(path.parent / line):
            yield str(path.parent / line)
        elif entry and not entry.startswith("#"):
            yield find_place(path.parent, entry)


def decode_list(content: bytes) -> str:
    """Returns the text of a list; bytes that are not UTF-8 stay what they are in the names of files."""
    for mark, encoding in MARKS:
        if content.startswith(mark):
            return content.removeprefix(mark).decode(encoding, "surrogateescape" if encoding == "utf-8" else "replace")
    if b"\0" in content[:4]:
        return content.decode("utf-16-be" if content[:1] == b"\0" else "utf-16-le", "replace")
    return os.fsdecode(content)


def find_place(folder: Path, entry: str) -> str:
    """Returns what an entry means: a URL as it is, or a path, of which both may follow the member of an archive."""
    found = Place.split(entry, lambda name: os.path.exists(find_path(folder, name)))
    if "://" not in found.members:
        return entry if "://" in entry else find_path(folder, entry)
    return entry if not found.is_local else found._replace(file=find_path(folder, found.file)).join()


def find_path(folder: Path, entry: str) -> str:
    """Returns the path that an entry means: as it is written, or with the home folder for `~` or as Windows writes it,
    where only that exists.
    """
    written = [entry, os.path.expanduser(entry), os.fsencode(entry).decode("cp1252", "replace")]
    for name in [*written, *(name.replace("\\", "/") for name in written)]:
        if os.path.exists(path := folder / name):  # unlike the method of a path, also of names that are too long
            return str(path)
    return str(folder / entry)
