# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Records what a folder holds when this project has written it.

Each such folder has a file `.manifest.json`, with the size and the sha256 of every other file, and the version of this
project that wrote it. By it this project knows which files are its own, and may be replaced or removed, and whether
they are still as they were written. A file that one of several processes adds, or that lies in a folder that grows, has
a record of its own instead, `.manifest.NAME.json`, so that none waits for another.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from modeling_esvit import __version__
from modeling_esvit.errors import EsViTError


MANIFEST = ".manifest.json"
PARTIAL = ".partial"  # the ending of what is being written
VERSION = "version"  # the entry of a record that names the version that wrote it; it is not compared
RECORD = re.compile(r"\.manifest\.([^/]+\.)?json((\.\d+)?\.partial)?")  # also one that a kill left unfinished
BLOCK = 2**20  # bytes
NAMED = 3  # how many files a message names


class ForeignFilesError(EsViTError, ValueError):
    """Raised instead of removing or replacing what this project has no record of having written."""


def write_manifest(folder: Path, later: Iterable[str] = ()) -> None:
    """Records all files of a folder.

    Args:
        later: Files that will be added, each to be recorded by `atomic.record_file`.
    """
    files = {name: describe_file(folder / name) for name in list_names(folder)}
    write_record(folder, {"files": files, "later": list(later), "unfinished": False})


def mark_unfinished(folder: Path) -> None:
    """Marks a folder as one that is being written, all of whose files are therefore ours."""
    write_record(folder, {"files": {}, "later": [], "unfinished": True})


def write_record(folder: Path, record: dict[str, Any]) -> None:
    (folder / MANIFEST).write_text(format_record(record), encoding="utf-8")


def format_record(record: dict[str, Any]) -> str:
    return json.dumps({**record, VERSION: __version__}, indent=2) + "\n"


def read_record(folder: Path) -> dict[str, Any]:
    """Returns the record of a folder: its files by name, and the names of those that may come later.

    Without a record, or with a damaged one, a folder has no files of ours.
    """
    record = read_json(folder / MANIFEST)
    return record if is_record(record) else {"files": {}, "later": [], "unfinished": False}


def read_json(path: Path) -> Any:
    """Returns what a file of a record holds; None if there is none, or if it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):  # of brackets within brackets
        return None


def is_record(found: Any) -> bool:
    """Returns whether what a record's file holds has the form of one; a flipped bit may have given it another."""
    return (
        isinstance(found, dict)
        and isinstance(found.get("files"), dict)
        and isinstance(found.get("later"), list)
        and all(isinstance(name, str) and is_below(name) for name in [*found["files"], *found["later"]])
        and isinstance(found.get("unfinished"), bool)
    )


def is_below(name: str) -> bool:
    """Returns whether a name in a record leads to a file of its folder, and nowhere else."""
    path = PurePath(name)
    return not path.anchor and ".." not in path.parts


def has_damaged_record(folder: Path) -> bool:
    """Returns whether a folder has a record that is damaged; a file of another program with its name is none."""
    found = read_json(folder / MANIFEST)
    is_other = found is not None and not (isinstance(found, dict) and {"files", VERSION} & found.keys())
    return (folder / MANIFEST).exists() and not is_record(found) and not is_other


def list_names(folder: Path) -> list[str]:
    """Returns everything in a folder that is not a folder itself, links included, but for the record."""
    names = []
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        names += [Path(parent, name).relative_to(folder).as_posix() for name in [*files, *links]]
    return sorted(name for name in names if not RECORD.fullmatch(name))


def name_record(name: str) -> str:
    """Returns the name of a file's own record."""
    return f".manifest.{name}.json"


def read_own_record(folder: Path, name: str) -> dict[str, Any] | None:
    """Returns what a file's own record says of it; None without one, or with a damaged one."""
    found = read_json(folder / name_record(name))
    return {key: value for key, value in found.items() if key != VERSION} if isinstance(found, dict) else None


def format_own_record(description: dict[str, Any]) -> str:
    """Returns the content of a file's own record."""
    return json.dumps({VERSION: __version__, **description})


def describe_file(path: Path) -> dict[str, Any]:
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            checksum.update(block)
    return {"size": path.stat().st_size, "sha256": checksum.hexdigest()}


def describe_content(content: bytes) -> dict[str, Any]:
    """Returns what `describe_file` says of a file with this content."""
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def find_damage(folder: Path, names: Iterable[str] | None = None) -> list[str]:
    """Returns what is wrong with the files that a folder's record names, or with some of them, one phrase a file."""
    files = read_record(folder)["files"]
    damage = []
    for name in files if names is None else names:
        path, written = folder / name, read_own_record(folder, name) or files.get(name)
        if written is None and not files:
            return [f"{name} has no record, or a damaged one"]
        if path.is_symlink() or not path.is_file():
            damage.append(f"{name} is missing")
        elif describe_file(path) != written:
            damage.append(f"{name} is not as it was written")
    if names is None and not files:
        return [f"it has no record of its files, or a damaged one ({MANIFEST})"]
    return damage


def describe_change(path: Path) -> str | None:
    """Says what is wrong with a file that has a record of its own; None if nothing is, or of a file without one.

    One without a record is a copy, or of an earlier version.
    """
    record = path.with_name(name_record(path.name))
    damage = find_damage(path.parent, [path.name]) if record.exists() else []
    return f"{damage[0]}. If you changed it yourself, delete {record.name} beside it" if damage else None


def list_others(folder: Path) -> list[str]:
    """Returns the files and empty folders in a folder that neither its record nor one of their own names."""
    record = read_record(folder)
    if record["unfinished"] and folder.name.endswith(PARTIAL):  # one with another name was saved by somebody
        return []
    own = {*record["files"], *record["later"]}
    files = [name for name in list_names(folder) if name not in own and not has_own_record(folder, name)]
    return [*files, *list_other_records(folder, own), *list_other_folders(folder, own)]


def has_own_record(folder: Path, name: str) -> bool:
    """Returns whether a file has a record of its own, whole or damaged; what another program calls so is none."""
    path = folder / name_record(name)
    found = read_json(path)
    return path.exists() and (found is None or is_own_record(found))


def is_own_record(found: Any) -> bool:
    """Returns whether what a file holds has the form of the record of a file."""
    return isinstance(found, dict) and found.keys() - {VERSION} == {"size", "sha256"}


def list_other_records(folder: Path, own: set[str]) -> list[str]:
    """Returns the files that are called like the record of a file, but are none.

    One that has the form of a record is what a kill left between removing the file and removing the record.
    """
    others = []
    for path in sorted(folder.glob(".manifest.*")):
        match = RECORD.fullmatch(path.name)
        if match and match[1] and not match[2]:
            name = match[1].removesuffix(".")
            found = read_json(path)
            is_damaged = found is None and (folder / name).exists()
            if not (is_own_record(found) or is_damaged or name in own):
                others.append(path.name)
    return others


def list_other_folders(folder: Path, own: set[str]) -> list[str]:
    """Returns the empty folders in a folder in which no file of ours lay."""
    names = [Path(parent).relative_to(folder).as_posix() + "/" for parent, *inner in os.walk(folder) if not any(inner)]
    return sorted(name for name in names if name != "./" and not any(each.startswith(name) for each in own))


def check_own(folder: Path) -> None:
    """Checks that a folder may be removed: it does not exist, is empty or unfinished, or holds recorded files alone.

    Raises:
        ForeignFilesError: It holds others, or is no folder.
    """
    if folder.is_symlink() or folder.exists() and not folder.is_dir():
        kind = "link" if folder.is_symlink() else "file"
        raise ForeignFilesError(f"{folder} is a {kind}, no folder that this program has written; name another one.")
    if others := list_others(folder):
        shown = ", ".join(others[:NAMED]) + (f" and {len(others) - NAMED} more" if len(others) > NAMED else "")
        raise ForeignFilesError(
            f"{folder} holds what this program has no record of writing: {shown}. Nothing was removed. Name another "
            "folder, or move it away."
        )


def check_replaceable(path: Path) -> None:
    """Checks that a file may take the place of what has this name: who is root would lose /dev/null or /dev/stdout.

    Raises:
        ForeignFilesError: It is a device, a pipe, a socket or a link to something that a process has open.
    """
    is_special = path.exists() and not path.is_file() and not path.is_dir()
    if is_special or path.is_symlink() and os.readlink(path).startswith("/proc/"):
        raise ForeignFilesError(f"{path} is a device or a pipe, which a file would replace: name a file.")


def remove_folder(folder: Path) -> None:
    """Removes a folder that this project has written; one that does not exist is none.

    Raises:
        ForeignFilesError: It holds something else, too, and was left as it is.
    """
    check_own(folder)
    if folder.exists():
        delete_folder(folder)


def delete_folder(folder: Path) -> None:
    """Deletes a folder of ours, and its records last, so that what a kill or an error leaves is still known as ours.

    Raises:
        OSError: Something in it cannot be deleted.
    """
    for path in sorted(folder.iterdir(), key=lambda path: RECORD.fullmatch(path.name) is not None):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MANIFEST:
            path.unlink()
    shutil.rmtree(folder)


def remove_own_files(folder: Path) -> None:
    """Removes the files that this project has written into a folder, and the folder if nothing else is in it."""
    others = {*list_others(folder)}
    for name in list_names(folder):
        if name not in others:
            (folder / name).unlink()
    for path in [path for path in folder.iterdir() if RECORD.fullmatch(path.name) and path.name not in others]:
        path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
