# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the shards that a path, URL, glob or pattern with braces names.

    shards/*.parquet                                     a glob, local or of any file system that can list
    https://host/train-{000000..001023}.tar              a range of numbers, with as many zeros as the first
    {https://one/a.tar,https://other/b.tar}              a list
    hf://datasets/namespace/name@main/data/*.parquet     on the Hub, pinned to the commit that `main` is now

Braces are not nested. A local file whose name has braces is taken literally.
"""

import glob
import os
import re
from pathlib import Path
from typing import Any

import fsspec

from training.data.columns import DataNotFoundError, DataOptionError


BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
SHARDS = (".parquet", ".tar")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def expand_braces(pattern: str) -> list[str]:
    """Returns what the braces of `pattern` stand for, in their order; the pattern itself if there are none."""
    match = None if os.path.exists(os.path.expanduser(pattern)) else BRACES.search(pattern)
    if match is None:
        return [pattern]
    first, last, words = match.groups()
    if words is None:
        middles = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    else:
        middles = words.split(",")
    return [
        each for middle in middles for each in expand_braces(pattern[: match.start()] + middle + pattern[match.end() :])
    ]


def names_shards(data: str, suffixes: tuple[str, ...] = SHARDS) -> bool:
    """Returns whether everything that `data` names ends in one of `suffixes`.

    Raises:
        DataOptionError: it names compressed tar files.
    """
    names = expand_braces(data)
    if any(name.endswith(COMPRESSED) for name in names):
        raise DataOptionError(
            f"{data!r}: a compressed tar file cannot be read in parts, which order and resume need. Decompress it "
            "(images in it are compressed anyway)."
        )
    return bool(names) and all(name.endswith(suffixes) for name in names)


def find_shards(data: str, revision: str | None = None) -> list[str]:
    """Returns the files that `data` names; those of a glob are sorted. `revision` replaces that of hf:// URLs.

    Raises:
        DataNotFoundError: a glob, or a local name, matches no file.
        DataOptionError: one file is named twice.
    """
    files = [file for pattern in expand_braces(data) for file in _find_files(pattern, revision)]
    twice = next((file for file in files if files.count(file) > 1), None) if len(set(files)) < len(files) else None
    if twice is not None:
        raise DataOptionError(f"{data!r} names {twice!r} twice: each image must come once an epoch, so leave one out.")
    return files


def _find_files(pattern: str, revision: str | None) -> list[str]:
    if "://" not in pattern:
        files = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))
    else:
        pattern = _pin_commit(pattern, revision) if pattern.startswith("hf://") else pattern
        filesystem, path = fsspec.core.url_to_fs(pattern)
        files = sorted(filesystem.glob(path)) if glob.has_magic(path) else [path]
        files = [filesystem.unstrip_protocol(file) for file in files]
    if not files:
        raise DataNotFoundError(f"no file matches {pattern!r}: check the path.")
    return files


def _pin_commit(url: str, revision: str | None) -> str:
    """Returns an hf:// URL with the commit that its revision is now."""
    from huggingface_hub import HfApi, HfFileSystem
    from huggingface_hub.constants import REPO_TYPES_URL_PREFIXES

    place: Any = HfFileSystem().resolve_path(url, revision=revision)
    commit = HfApi().repo_info(place.repo_id, repo_type=place.repo_type, revision=place.revision).sha
    return f"hf://{REPO_TYPES_URL_PREFIXES.get(place.repo_type, '')}{place.repo_id}@{commit}/{place.path_in_repo}"


def commit_of(urls: list[str]) -> str | None:
    """Returns the commit that these hf:// URLs name; None for other URLs."""
    match = re.match(r"hf://[^@]*@([0-9a-f]{40})/", urls[0]) if urls else None
    return None if match is None else match[1]
