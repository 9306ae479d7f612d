# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What data a run was begun with: `data.json` in its folder, so that it is not continued with other data.

Of a stream, the shards with their lengths, sizes and versions; of a data set of the Hub, its commit, which a continued
run reads again, whatever was added meanwhile; of a folder, its paths.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from modeling_esvit.storage.atomic import write_text
from training.data.shard_names import commit_of
from training.data.shard_stream import ShardStream
from training.data.sources import FolderSource, ImageSource
from training.state.checkpoints import ResumeError


def identity(source: ImageSource) -> dict[str, Any]:
    """What tells the data of `source` from others, as JSON has it."""
    if isinstance(source, ShardStream):
        files = [(shard.file, len(shard)) for shard in source.shards]
        shards = {file.url: [rows, file.size, file.version] for file, rows in files}
        return {"images": sum(rows for _, rows in files), "commit": commit_of([*shards]), "shards": shards}
    if isinstance(source, FolderSource):
        return {"images": len(source), "paths": hashlib.sha256("\n".join(source.paths()).encode()).hexdigest()}
    return {"images": len(source)}


class DataRecord:
    """`data.json` of a run's folder. It says nothing of a run that left no checkpoint to continue from."""

    def __init__(self, output_dir: str) -> None:
        self._path = Path(output_dir) / "data.json"
        begun = self._path.is_file() and (self._path.parent / "checkpoints" / "last").exists()
        self._found = self._read() if begun else None

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(self._path.read_text())
        except ValueError as error:
            raise ResumeError(
                f"{self._path}, which says what data the run was begun with, is damaged ({type(error).__name__} on "
                "reading it). If the data are still the same, delete it, and start the same command again."
            ) from error

    def commit(self, data: str | None) -> str | None:
        """The commit that was read, if the run was begun with data of this name."""
        found = self._found
        return found["identity"].get("commit") if found is not None and found["data"] == data else None

    def check(self, source: ImageSource) -> None:
        """Raises:
        ResumeError: the run was begun with other data.
        """
        if self._found is None:
            return
        change = _change(self._found["identity"], identity(source))
        if change is not None:
            raise ResumeError(
                f"the run was begun with other data: {change}. Bring them back, or give another output_dir. If the "
                f"content is the same (a copy, say), delete {self._path}."
            )

    def write(self, data: str | None, source: ImageSource) -> None:
        write_text(self._path, json.dumps({"data": data, "identity": identity(source)}, indent=1) + "\n")


def _change(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first difference, in words."""
    there, here = before.pop("shards", {}), now.pop("shards", {})
    for url in [*there, *here]:
        if url not in here:
            return f"the shard {url} is missing"
        if url not in there:
            return f"the shard {url} is new"
        if there[url] != here[url]:
            return f"{url} had [rows, bytes, version] {there[url]} and has {here[url]}"
    names = [name for name in before if before[name] != now.get(name)]
    return f"{names[0]} was {before[names[0]]!r} and is {now.get(names[0])!r}" if names else None
