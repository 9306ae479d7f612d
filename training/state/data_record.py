# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Records the data that a run began with, in `data.json` of its folder, so that it is not continued with other data.

A continued run on a data set of the Hub reads the commit recorded here, whatever was added since.
"""

import json
import logging
from pathlib import Path

from modeling_esvit.storage.atomic import rewrite_recorded
from modeling_esvit.storage.identity import Identity
from modeling_esvit.storage.manifest import describe_change
from training.data.identity import identify_source
from training.data.sources import ImageSource
from training.state.checkpoints import ResumeError
from training.state.files import report_write_errors


logger = logging.getLogger(__name__)


class DataRecord:
    """Reads, checks and writes the record of a run; a record without a checkpoint to continue from does not count."""

    def __init__(self, output_dir: str) -> None:
        self._path = Path(output_dir) / "data.json"
        begun = self._path.is_file() and (self._path.parent / "checkpoints" / "last").exists()
        self._data: str | None = None
        self._found: Identity | None = None
        if begun:
            self._data, self._found = self._read()

    def _read(self) -> tuple[str | None, Identity]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            found = content["data"], Identity.from_json(content["identity"])
        except (ValueError, TypeError, KeyError) as error:
            raise self._make_error(f"is damaged ({type(error).__name__} on reading it)") from error
        if change := describe_change(self._path):
            raise self._make_error(f"is damaged or was changed: {change}")
        return found

    def _make_error(self, problem: str) -> ResumeError:
        return ResumeError(
            f"{self._path}, which records the data that the run began with, {problem}. If the data are still the same, "
            "delete it, and start the same command again."
        )

    def commit(self, data: str | None) -> str | None:
        """Returns the commit that the run read, if it began with data of this name."""
        return self._found.commit if self._found is not None and self._data == data else None

    def check(self, source: ImageSource) -> None:
        """Checks that the run began with this data; files that were modified at another time are warned of.

        Raises:
            ResumeError: It began with other data.
        """
        if self._found is None:
            return
        now = identify_source(source)
        if change := self._found.describe_change(now):
            raise ResumeError(
                f"The run was begun with other data: {change}. Bring them back, or give another output. If the "
                f"content is the same (a copy, say), delete {self._path}."
            )
        if times := self._found.describe_times(now):
            logger.warning("Taken for the same data, but modified at other times than before: %s.", times)

    def write(self, data: str | None, source: ImageSource) -> None:
        """Writes the record of a run that begins, or continues, with this data.

        Raises:
            UnwritableCheckpointError: It cannot be written.
        """
        content = {"data": data, "identity": identify_source(source).to_json()}
        with report_write_errors(self._path.parent):
            rewrite_recorded(self._path, json.dumps(content, indent=1) + "\n")
