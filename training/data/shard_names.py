# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the shards that a path, URL, glob or pattern with braces names.

    shards/*.parquet                                     a glob, local or of any file system that can list
    https://host/train-{000000..001023}.tar              a range of numbers, with as many zeros as the first
    {https://one/a.tar,https://other/b.tar}              a list
    hf://datasets/namespace/name@main/data/*.parquet     on the Hub, pinned to the commit that `main` is now
    hf://buckets/namespace/name/data/*.parquet           in a bucket of the Hub, whose files must not change
    s3://bucket/data/*.tar, gs://..., az://...           in a store, by the package that fsspec names

Braces are not nested. Brackets and braces in the names of local folders and files that exist are taken literally.
"""

import glob
import os
import re
from typing import Any

from modeling_esvit.images.data_errors import DataNotFoundError, DataOptionError
from modeling_esvit.images.folders import LeftOut
from modeling_esvit.images.hub import FILES, report_no_hub
from modeling_esvit.images.names import has_ending
from modeling_esvit.images.shards import COMPRESSED, SHARDS, choose_shards, match_files
from modeling_esvit.storage.paths import expand_home
from modeling_esvit.storage.url_secrets import expand_braces, hide_secrets
from training.data.shard_files import BUCKET, open_store, retry


SERVER = re.compile(r"https?://[^/]*")  # whose address of IPv6 is in brackets


def names_shards(data: str, suffixes: tuple[str, ...] = SHARDS) -> bool:
    """Returns whether everything that `data` names ends in one of `suffixes`, and is no folder.

    Raises:
        DataOptionError: it names compressed tar files.
    """
    if os.path.isdir(expand_home(data)):
        return False
    names = expand_braces(data)
    refuse_compressed(names)
    return bool(names) and all(has_ending(name, suffixes) for name in names)


def refuse_compressed(names: list[str]) -> None:
    """Refuses compressed tar files.

    Raises:
        DataOptionError: one of the names is that of a compressed tar file.
    """
    found = next((name for name in names if has_ending(name, COMPRESSED)), None)
    if found is not None:
        raise DataOptionError(
            f"{found!r}: a compressed tar file cannot be read in parts, which order and resume need. Decompress it "
            "(images in it are compressed anyway)."
        )


def shorten_names(urls: list[str]) -> list[str]:
    """Returns a short name of each shard: that of its file or, where two files have the same name, its path below the
    folder that all of them are in.
    """
    names = [os.path.basename(url) for url in urls]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonprefix([os.path.dirname(url) for url in urls])
    return [url[max(common.rfind("/"), common.rfind(os.sep)) + 1 :] for url in urls]


def find_shards(data: str, revision: str | None = None, left_out: LeftOut | None = None) -> list[str]:
    """Returns the files that `data` names; those of a glob are sorted. `revision` replaces that of hf:// URLs.

    No file comes twice, whatever links lead to it: `left_out` counts these, and folders that a glob matches.

    Raises:
        DataNotFoundError: a glob, or a local name, matches no file.
        DataOptionError: one file is named twice.
    """
    left_out = LeftOut() if left_out is None else left_out
    files = [file for pattern in expand_braces(data) for file in _find_files(pattern, revision, left_out)]
    twice = next((file for file in files if files.count(file) > 1), None) if len(set(files)) < len(files) else None
    if twice is not None:
        raise DataOptionError(f"{data!r} names {twice!r} twice: each image must come once an epoch, so leave one out.")
    return choose_shards(files, left_out)


def _find_files(pattern: str, revision: str | None, left_out: LeftOut) -> list[str]:
    if "://" not in pattern:
        files = match_files(str(expand_home(pattern)), left_out)
    else:
        pattern = _pin_commit(pattern, revision) if pattern.startswith("hf://") else pattern
        files = _list_store(pattern) if glob.has_magic(SERVER.sub("", pattern)) else [pattern]
    if not files:
        raise DataNotFoundError(f"no file matches {pattern!r}: check the path.")
    return files


def _list_store(pattern: str) -> list[str]:
    """Returns the URLs of a store that match a glob, sorted.

    Raises:
        DataOptionError: the server is named by an address of IPv6, of which fsspec takes the brackets for a pattern.
    """
    if (server := SERVER.match(pattern)) and "[" in server[0]:
        raise DataOptionError(
            f"{pattern!r}: files of a server are not listed by its IPv6 address; name them by braces: {{0..9}}."
        )
    filesystem, path = open_store(pattern)
    filesystem.invalidate_cache()
    found = retry(pattern, 0, lambda: filesystem.glob(path) or [path] * filesystem.isfile(path))
    return [hide_secrets(filesystem.unstrip_protocol(file)) for file in sorted(found)]


def _pin_commit(url: str, revision: str | None) -> str:
    """Returns an hf:// URL with the commit that its revision is now. A bucket has no commits.

    Raises:
        DataNotFoundError: there is no such repository.
        DataOptionError: a revision of a bucket is asked for.
        NoHubError: the Hub cannot be reached.
    """
    if BUCKET.match(url):
        if revision is not None:
            raise DataOptionError(f"{url!r} is in a bucket, which has no revisions: leave revision out.")
        return url
    from huggingface_hub import HfApi, HfFileSystem
    from huggingface_hub.constants import REPO_TYPES_URL_PREFIXES

    with report_no_hub(url, FILES):
        try:
            place: Any = HfFileSystem().resolve_path(url, revision=revision)
        except FileNotFoundError as error:
            raise DataNotFoundError(f"{url!r}: {error}") from error
        commit = HfApi().repo_info(place.repo_id, repo_type=place.repo_type, revision=place.revision).sha
    return f"hf://{REPO_TYPES_URL_PREFIXES.get(place.repo_type, '')}{place.repo_id}@{commit}/{place.path_in_repo}"


def commit_of(urls: list[str]) -> str | None:
    """Returns the commit that these hf:// URLs name; None for other URLs."""
    match = re.match(r"hf://[^@]*@([0-9a-f]{40})/", urls[0]) if urls else None
    return None if match is None else match[1]
