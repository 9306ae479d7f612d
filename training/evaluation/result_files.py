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
ENDINGS = (".md", ".png")  # of the table and the picture


class ChangedResultError(EsViTError, RuntimeError):
    """Raised when a result is not as it was written."""


def write_result_file(path: Path, result: dict[str, Any], beside: Iterable[str] = ()) -> None:
    """Writes a result, with a checksum of it.

    Args:
        beside: names of files that will be written beside it, which are added to those that it named before.
    """
    names = sorted({*list_beside(path), *beside})
    content = result | ({BESIDE: names} if names else {})
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
            f"{path} is damaged or was changed. Delete it and measure anew, or, if you changed it yourself, delete its "
            f"entry {CHECKSUM}."
        )
    if isinstance(content, dict):
        content.pop(BESIDE, None)
    return content


def list_beside(path: Path) -> set[str]:
    """Returns the names of the files beside a result that it names as its own; none of what is no result."""
    content = read_json(path)
    names = content.get(BESIDE) if isinstance(content, dict) else None
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()


def check_beside(output: Path, endings: Sequence[str] = ENDINGS) -> None:
    """Checks, before anything is computed, that the files beside a result may be written.

    Raises:
        ForeignFilesError: one exists, and the result that `output` holds does not name it; or it is a device.
    """
    own = list_beside(output)
    for file in (output.with_name(output.stem + ending) for ending in endings):
        check_replaceable(file)
        if file.exists() and file.name not in own:
            raise ForeignFilesError(
                f"{file} lies where a table or picture is written, and {output.name} does not name it as one of its "
                "own. Move it away, or name another file for the result."
            )
