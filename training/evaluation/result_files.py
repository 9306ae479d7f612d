# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes and reads the JSON file of a result, which has a checksum and names the tables and pictures beside it.

By these names later calls know which files beside it are theirs, and may be replaced.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from modeling_esvit.errors import EsViTError
from modeling_esvit.storage.atomic import write_text
from modeling_esvit.storage.identity import compute_checksum
from modeling_esvit.storage.manifest import ForeignFilesError, check_replaceable, read_json


CHECKSUM = "checksum"  # the last entry of a file, that of the others
BESIDE = "beside"  # the entry with the names of the files beside it
MODELS = {"model", "models"}  # every result has one of these entries
ENDINGS = (".md", ".png")  # of the table and the picture


class ChangedResultError(EsViTError, RuntimeError):
    """Raised when a result is not as it was written."""


def write_result_file(path: Path, result: dict[str, Any], beside: Iterable[str] = ()) -> None:
    """Writes a result, with a checksum of it.

    Args:
        beside: names of files that will be written beside it, which are added to those that it named before.
    """
    content = result | {BESIDE: sorted({*list_beside(path), *beside})}
    write_text(path, json.dumps(content | {CHECKSUM: compute_checksum(json.dumps(content))}, indent=2) + "\n")


def read_result_file(path: Path) -> Any:
    """Returns what a file of a result holds; one of an earlier version, or of somebody else, has no checksum.

    Raises:
        ChangedResultError: It has changed since it was written.
        OSError, ValueError: It cannot be read, or is no JSON.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    written = content.pop(CHECKSUM, None) if isinstance(content, dict) else None
    if written is not None and written != compute_checksum(json.dumps(content)):
        raise ChangedResultError(
            f"{path} is damaged or was changed. Delete it, with its table and pictures, and measure anew; or, if you "
            f"changed it yourself, delete its entry {CHECKSUM}."
        )
    if isinstance(content, dict):
        content.pop(BESIDE, None)
    return content


def list_beside(path: Path, usual: Iterable[str] = ()) -> set[str]:
    """Returns the names of the files beside a result that it names as its own; none of what is no result.

    Args:
        usual: names that those of a result of an earlier version have, which does not name them.
    """
    content = read_json(path)
    content = content if isinstance(content, dict) else {}
    names = content.get(BESIDE, [*usual] if MODELS & content.keys() else [])
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def check_beside(output: Path, endings: Sequence[str] = ENDINGS) -> None:
    """Checks, before anything is computed, that the files beside a result may be written.

    Raises:
        ForeignFilesError: one exists, and the result that `output` holds does not name it; or it is a device.
    """
    files = [output.with_name(output.stem + ending) for ending in endings]
    own = list_beside(output, [file.name for file in files])
    for file in files:
        check_replaceable(file)
        if file.exists() and file.name not in own:
            raise ForeignFilesError(
                f"{file} lies where a table or picture is written, and {output.name} does not name it as one of its "
                "own. Move it away, or name another file for the result."
            )
