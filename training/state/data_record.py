# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Records the data that a run began with, in `data.json` of its folder, so that it is not continued with other data.

A continued run on a data set of the Hub reads the commit recorded here, whatever was added since.
"""

import json
from pathlib import Path
from typing import Any

from modeling_esvit.storage.atomic import write_text
from training.data.identity import identify_source
from training.data.sources import ImageSource
from training.state.checkpoints import ResumeError


class DataRecord:
    """Reads, checks and writes the record of a run; a record without a checkpoint to continue from does not count."""

    def __init__(self, output_dir: str) -> None:
        self._path = Path(output_dir) / "data.json"
        begun = self._path.is_file() and (self._path.parent / "checkpoints" / "last").exists()
        self._found = self._read() if begun else None

    def _read(self) -> dict[str, Any]:
        try:
            return json.loads(self._path.read_text())
        except ValueError as error:
            raise ResumeError(
                f"{self._path}, which records the data that the run began with, is damaged ({type(error).__name__} on "
                "reading it). If the data are still the same, delete it, and start the same command again."
            ) from error

    def commit(self, data: str | None) -> str | None:
        """Returns the commit that the run read, if it began with data of this name."""
        found = self._found
        return found["identity"].get("commit") if found is not None and found["data"] == data else None

    def check(self, source: ImageSource) -> None:
        """Checks that the run began with this data.

        Raises:
            ResumeError: It began with other data.
        """
        if self._found is None:
            return
        change = _describe_change(self._found["identity"], identify_source(source))
        if change is not None:
            raise ResumeError(
                f"The run was begun with other data: {change}. Bring them back, or give another output_dir. If the "
                f"content is the same (a copy, say), delete {self._path}."
            )

    def write(self, data: str | None, source: ImageSource) -> None:
        write_text(self._path, json.dumps({"data": data, "identity": identify_source(source)}, indent=1) + "\n")


def _describe_change(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Returns the first difference in words, or None if there is none."""
    old, new = before.pop("shards", {}), now.pop("shards", {})
    for url in [*old, *new]:
        if url not in new:
            return f"the shard {url} is missing"
        if url not in old:
            return f"the shard {url} is new"
        if old[url] != new[url]:
            return f"{url} had [rows, bytes, version] {old[url]} and has {new[url]}"
    names = [name for name in before if before[name] != now.get(name)]
    return f"{names[0]} was {before[names[0]]!r} and is {now.get(names[0])!r}" if names else None
