# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Keeps copies of remote shards on a disk, which later epochs and runs read.

A shard is stored whole when the first of its images is needed. It is written to another name, forced to the disk and
renamed, so a file with the final name is complete. Its name is made of URL, size and version, so a new version is a new
file. The processes of a machine share a folder, and each shard is fetched by one of them. Nothing is ever deleted: the
folder grows to the size of the data.
"""

import hashlib
import logging
import shutil
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from filelock import FileLock

from modeling_esvit.images.read_ahead import abandonable, in_order
from modeling_esvit.storage.atomic import record_file, replace_file
from modeling_esvit.storage.manifest import find_damage
from training.data.shard_files import ShardError, ShardFile


logger = logging.getLogger(__name__)

# Bytes of a request for a part of a shard, and how many requests are made at a time.
PART, REQUESTS = 8 * 1024**2, 4


class CacheError(ShardError):
    """Raised when a shard cannot be stored: the disk is full, or may not be written to."""


class ShardCache:
    """Keeps copies of shards in `folder`. Several threads and processes may use it at the same time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._verified = set[str]()  # names of copies that this process has compared with their records

    def local(self, file: ShardFile) -> ShardFile:
        """Returns the copy of `file`, which is fetched if it is missing. A local file is its own copy.

        Raises:
            CacheError: it cannot be stored.
            ShardError: it cannot be read.
        """
        if file.is_local:
            return file
        path = self._path(file)
        if not self._is_whole(path, file):
            with abandonable():  # another thread may hold the lock while it waits for the server
                self._fetch(file, path)
        return ShardFile.locate(str(path), retry_seconds=0)

    def _path(self, file: ShardFile) -> Path:
        key = hashlib.sha256(repr((file.url, file.size, file.version)).encode()).hexdigest()[:16]
        return self.folder / f"{key}-{PurePosixPath(urlsplit(file.url).path).name}"

    def _is_whole(self, path: Path, file: ShardFile) -> bool:
        """Returns whether there is a copy as it was written; its content is looked at once."""
        if not path.is_file() or path.stat().st_size != file.size:
            return False
        if path.name not in self._verified:
            if damage := find_damage(self.folder, [path.name]):
                logger.warning("A copy in %s is fetched anew: %s.", self.folder, damage[0])
                return False
            self._verified.add(path.name)
        return True

    def _fetch(self, file: ShardFile, path: Path) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(f"{path.name}.lock")):
                if not self._is_whole(path, file):  # another process may have fetched it meanwhile
                    with replace_file(path) as partial:
                        _write(file, partial)
                    record_file(self.folder, path.name, shared=True)
        except ShardError:  # of reading
            raise
        except OSError as error:
            raise CacheError(
                f"{file.url} ({file.size / 1e6:.1f} MB) cannot be stored in the cache {str(self.folder)!r}: "
                f"{error.strerror}; {_free_bytes(self.folder) / 1e6:.1f} MB are free there. Make room, name another "
                "folder, or leave out cache."
            ) from error


def _write(file: ShardFile, path: Path) -> None:
    starts = iter(range(0, file.size, PART))
    parts = in_order(
        starts, lambda start: file.read_range(start, min(start + PART, file.size)), threads=REQUESTS, ahead=REQUESTS
    )
    with open(path, "wb") as copy:
        for part in parts:
            copy.write(part)


def _free_bytes(folder: Path) -> int:
    """Returns the free bytes of the disk that the folder is on, or would be on."""
    return shutil.disk_usage(next(each for each in (folder, *folder.absolute().parents) if each.exists())).free
