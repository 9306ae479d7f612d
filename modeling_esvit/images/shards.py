# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists shards: the parquet and tar files of a folder or pattern, each once, and counts those that are missing."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from modeling_esvit.images.folders import ANY_DEPTH, MATCHED_FOLDERS, LeftOut, expand_pattern
from modeling_esvit.images.names import has_ending
from modeling_esvit.images.places import check_regular


SHARDS = (".parquet", ".tar")
COMPRESSED = (
    *(f".tar.{method}" for method in ("gz", "bz2", "xz", "zst", "lz4", "lzma", "br", "Z")),
    *(".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".tlz"),
)
LINKED = "shards linked to again"
MISSING = "shards missing or not named (the names of others say -of-N)"
SERIES = re.compile(r"(.*)-[0-9]+-of-([0-9]{1,9})\b.*")  # train-00000-of-00002.parquet; the Hub appends a hash


def match_files(pattern: str, left_out: LeftOut) -> list[str]:
    """Returns the files that a pattern matches, sorted. `left_out` counts folders: Spark writes some like shards.

    Raises:
        PlaceError: one is no regular file.
    """
    paths = expand_pattern(pattern, left_out)
    files = [path for path in paths if not os.path.isdir(path)]
    for file in files:
        check_regular(file)
    if len(files) < len(paths) and not ANY_DEPTH.search(pattern):
        left_out[MATCHED_FOLDERS] += len(paths) - len(files)
    return files


def choose_shards(files: Sequence[str], left_out: LeftOut) -> list[str]:
    """Returns files without those that are another one of them by a link, of which the real one stays.

    `left_out` counts these, and shards that are missing, as where a download was stopped.
    """
    kept = dict[str, str]()
    for file in sorted(files, key=os.path.islink):
        kept.setdefault(file if "://" in file else os.path.realpath(file), file)
    chosen = set(kept.values())
    found = [file for file in files if file in chosen]
    if len(found) < len(files):
        left_out[LINKED] += len(files) - len(found)
    if missing := count_missing(found):
        left_out[MISSING] += missing
    return found


def count_missing(files: Iterable[str]) -> int:
    """Returns how many shards are not there of those that the names of others number."""
    series = Counter(match.groups() for match in map(SERIES.fullmatch, files) if match is not None)
    return sum(max(int(total) - present, 0) for (_, total), present in series.items())


def list_shards(path: Path, kinds: tuple[str, ...] = (*SHARDS, *COMPRESSED)) -> list[Path]:
    """Returns the parquet and tar files, compressed ones too, in a folder and in its `data` subfolder.

    Hidden files are none: copies that macOS makes have the names of the files.
    """
    folders = [folder for folder in (path, path / "data") if os.path.isdir(folder)]
    files = [file for folder in folders for file in sorted(folder.iterdir()) if has_ending(file, kinds)]
    return [file for file in files if not file.name.startswith(".") and not file.is_dir()]
