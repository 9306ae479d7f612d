# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes rows of the images in zip files, with the folders in them as classes, as in a folder of images.

`datasets` makes rows of them, too, but gives each image the class of the folder in which the zip file lies.
"""

import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.folders import HIDDEN_FILES, FoundImages, LeftOut, is_hidden_member
from modeling_esvit.images.names import has_ending, show_name
from modeling_esvit.images.places import open_zip
from modeling_esvit.images.rows import find_image_columns, leave_undecoded, list_places
from modeling_esvit.storage.identity import CHUNK, compose


TABLE = re.compile(r"(.*/)?metadata\.(csv|jsonl|parquet)")  # members that `datasets` makes rows of
FOLDER_ENDS = ("/", "\\")  # of names; some programs of Windows write the second
ENCRYPTION = 0b1100001  # flags of a member that is encrypted, or a patch of another one
LINKS = "links in zip files (without -y, zip stores what a link leads to)"
REPLACED = "members that a later one of the same name replaces"
UNNAMED = "images in zip files that no row of their tables names"


class DamagedZipError(EsViTError, ValueError):
    """Raised when a zip file cannot be read."""


def list_members(file: str) -> list[zipfile.ZipInfo]:
    """Returns the members of a zip file that are no folders.

    Raises:
        DamagedZipError: it is no zip file, was cut off or is damaged.
    """
    try:
        return [member for member in open_zip(file).infolist() if not member.filename.endswith(FOLDER_ENDS)]
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise DamagedZipError(f"{file} is no whole zip file: it was cut off, or is damaged ({error}).") from error


def list_names(file: str) -> list[str]:
    """Returns the names of the members of a zip file that are no folders.

    Raises:
        DamagedZipError: see `list_members`.
    """
    return [member.filename for member in list_members(file)]


def check_tables(file: str) -> None:
    """Reads the tables of a zip file, as `datasets` does, which does not say of which file it speaks.

    Raises:
        DamagedZipError: see `list_members`; or a table has a password or is damaged.
    """
    tables = [member for member in list_members(file) if TABLE.fullmatch(member.filename)]
    _check_storage(file, tables)
    for table in tables:
        try:
            with open_zip(file).open(table.filename) as content:
                while content.read(CHUNK):
                    pass
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
            raise DamagedZipError(f"{file} is damaged in {show_name(table.filename)}: {error}.") from error


def find_in_zip(file: str) -> FoundImages:
    """Finds the images in a zip file, and counts by kind what lies beside them, but tables.

    Raises:
        DamagedZipError: it cannot be read, or its images have a password.
    """
    found, listed = FoundImages(), list_members(file)
    members = {member.filename: member for member in listed}  # the later one of two of a name is the one that is opened
    for name in sorted(members):
        _add_member(found, members[name])
    found.left_out.update({REPLACED: len(listed) - len(members)} if len(listed) > len(members) else {})
    _check_storage(file, [members[name] for name in found.paths])
    return found


def _add_member(found: FoundImages, member: zipfile.ZipInfo) -> None:
    name = member.filename
    if is_hidden_member(split_name(name)):
        found.left_out[HIDDEN_FILES] += 1
    elif stat.S_ISLNK(member.external_attr >> 16):
        found.left_out[LINKS] += 1
    elif not TABLE.fullmatch(name):
        folder, slash, base = name.rpartition("/")
        found.add(folder + slash, base)


def _check_storage(file: str, members: Iterable[zipfile.ZipInfo]) -> None:
    """Opens one member of each way in which members are stored.

    Raises:
        DamagedZipError: they are encrypted, or compressed by a method that Python does not know.
    """
    for member in {(member.flag_bits & ENCRYPTION, member.compress_type): member for member in members}.values():
        try:
            open_zip(file).open(member.filename).close()
        except RuntimeError as error:
            raise DamagedZipError(f"{file} cannot be read here: {error}. Unpack it, and give the folder.") from error
        except (zipfile.BadZipFile, ValueError, OSError):  # of this member, which is named when it is read
            continue


def split_name(name: str) -> tuple[str, ...]:
    """Returns the folders of a member and its own name. Some programs of Windows write backslashes."""
    return PurePosixPath(name.replace("\\", "/")).parts


def are_photographs(files: Sequence[str]) -> bool:
    """Returns whether files of a split are local zip files without tables, of which `datasets` makes rows.

    Raises:
        DamagedZipError: one cannot be read.
    """
    are_zips = bool(files) and all(has_ending(file, ".zip") and "://" not in file for file in files)
    return are_zips and not any(TABLE.fullmatch(name) for file in files for name in list_names(file))


def load_zips(files: Sequence[str], left_out: LeftOut) -> Any:
    """Returns a data set of the images in zip files, and counts what lies beside them."""
    import datasets

    places, members = list[str](), list[str]()
    for file in files:
        found = find_in_zip(file)
        left_out.update(found.left_out)
        places += [f"zip://{name}::{file}" for name in found.paths]
        members += found.paths
    columns: dict[str, list[Any]] = {"image": [{"bytes": None, "path": place} for place in places]}
    features = datasets.Features({"image": datasets.Image()})
    if (classes := name_classes(members)) is not None:
        names = sorted({*classes})
        number = {name: index for index, name in enumerate(names)}
        columns["label"], features["label"] = [number[name] for name in classes], datasets.ClassLabel(names=names)
    return datasets.Dataset.from_dict(columns, features)


def count_beside_tables(files: Iterable[str], rows: Any) -> LeftOut:
    """Counts what local zip files hold beside their tables and the images of `rows`, which were made of these."""
    left_out, images = LeftOut(), 0
    for found in (find_in_zip(file) for file in files if has_ending(file, ".zip") and "://" not in file):
        left_out.update(found.left_out)
        images += len(found.paths)
    columns = find_image_columns(rows.features) if images else []
    named = {place for name in columns for place in list_places(leave_undecoded(rows, name), name) if place}
    left_out.update({UNNAMED: images - len(named)} if images > len(named) else {})
    return left_out


def name_classes(members: Iterable[str]) -> list[str] | None:
    """Returns the folder of each image, below a folder that all of them are in; None unless all lie in folders.

    A zip file of a folder begins with its name: `train/cat/1.png` is a cat.
    """
    folders = [[*map(compose, split_name(name)[:-1])] for name in members]
    while len({parts[0] if parts else "" for parts in folders}) == 1 and all(len(parts) > 1 for parts in folders):
        folders = [parts[1:] for parts in folders]
    return [parts[0] for parts in folders] if all(folders) else None
