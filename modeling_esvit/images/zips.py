# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes rows of the images in zip files, with the folders in them as classes, as in a folder of images.

`datasets` makes rows of them, too, but gives each image the class of the folder in which the zip file lies.
"""

import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.folders import FoundImages, LeftOut, is_hidden_member
from modeling_esvit.images.places import open_zip
from modeling_esvit.storage.identity import compose


TABLE = re.compile(r"(.*/)?metadata\.(csv|jsonl)|.*\.(parquet|arrow)")  # members that `datasets` makes rows of


class DamagedZipError(EsViTError, ValueError):
    """Raised when a zip file cannot be read."""


def list_names(file: str) -> list[str]:
    """Returns the names of the files in a zip file, sorted.

    Raises:
        DamagedZipError: it is no zip file, was cut off or is damaged.
    """
    try:
        return sorted({name for name in open_zip(file).namelist() if not name.endswith("/")})
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise DamagedZipError(f"{file} is no whole zip file: it was cut off, or is damaged ({error}).") from error


def find_in_zip(file: str) -> FoundImages:
    """Finds the images in a zip file, and counts by kind what lies beside them.

    Raises:
        DamagedZipError: it cannot be read.
    """
    found = FoundImages()
    for name in list_names(file):
        found.add("", f".{name}" if is_hidden_member(split_name(name)) else name)
    return found


def split_name(name: str) -> tuple[str, ...]:
    """Returns the folders of a member and its own name. Some programs of Windows write backslashes."""
    return PurePosixPath(name.replace("\\", "/")).parts


def are_photographs(files: Sequence[str]) -> bool:
    """Returns whether files of a split are local zip files without tables, of which `datasets` makes rows.

    Raises:
        DamagedZipError: one cannot be read.
    """
    are_zips = bool(files) and all(file.endswith(".zip") and "://" not in file for file in files)
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


def name_classes(members: Iterable[str]) -> list[str] | None:
    """Returns the folder of each image, below a folder that all of them are in; None unless all lie in folders.

    A zip file of a folder begins with its name: `train/cat/1.png` is a cat.
    """
    folders = [[*map(compose, split_name(name)[:-1])] for name in members]
    while len({parts[0] if parts else "" for parts in folders}) == 1 and all(len(parts) > 1 for parts in folders):
        folders = [parts[1:] for parts in folders]
    return [parts[0] for parts in folders] if all(folders) else None
