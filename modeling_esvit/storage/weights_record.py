# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Records in a model folder where its weights came from, for the card of whoever publishes it or a model made from it.

The record is the entry `weights` of `provenance.json`, the file by which a run also tells where its data and first
weights came from (`training/state/provenance_record.py`). Whatever it says is published. So it names no folder of a
machine. It has the checksums of the files of weights: trained further and saved in the same folder, they are others.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from modeling_esvit.errors import EsViTError
from modeling_esvit.storage.atomic import write_text
from modeling_esvit.storage.manifest import describe_change, describe_file


RECORD = "provenance.json"
WEIGHTS = "weights"
FILES = "files"


class ProvenanceError(EsViTError, ValueError):
    """Raised when a record of where something came from is damaged, or tells of something else."""


def make_error(path: Path, problem: str) -> ProvenanceError:
    return ProvenanceError(
        f"{path}, which records where data or weights came from, {problem}. Delete it; then nothing that it tells is "
        "published."
    )


class WeightsRecord(NamedTuple):
    """Says where the weights of a model came from, as far as whoever wrote it knows. All texts are in Markdown.

    Attributes:
        source: What has them, as it stands after "the weights of", such as "the package resnet-weights".
        training: How they were trained, as it stands after "They were trained"; None if that is not known.
        changes: A sentence on what was changed in them; None if nothing was.
        license: Their licence as `source` states it, by its identifier on the Hub; None if it states none.
        by_esvit: Whether they were trained by EsViT, and so without labels.
        is_teacher: Whether they are those of EsViT's teacher.
    """

    source: str
    training: str | None = None
    changes: str | None = None
    license: str | None = None
    by_esvit: bool = False
    is_teacher: bool = False

    def describe(self) -> str:
        """Returns in words what is known, as the object of a sentence."""
        how = f", which were trained {self.training}" if self.training else ""
        licence = f" (licence {self.license}, as stated there)" if self.license else ""
        return f"the weights of {self.source}{licence}{how}"


def write_weights_record(folder: Path, record: WeightsRecord | None) -> None:
    """Writes the record into a model folder that has its weights; nothing if there is none."""
    if record is not None:
        entry = {**record._asdict(), FILES: describe_weights(folder)}
        write_text(folder / RECORD, json.dumps({WEIGHTS: entry}, indent=1) + "\n")


def describe_weights(folder: Path) -> dict[str, Any]:
    return {path.name: describe_file(path) for path in sorted(folder.glob("*.safetensors"))}


def read_weights_record(folder: Path) -> WeightsRecord | None:
    """Returns the record of a model folder; None if it has none.

    Raises:
        ProvenanceError: It is damaged, or tells of other weights.
    """
    found = read_provenance_file(folder).get(WEIGHTS)
    if found is None:
        return None
    files = found.pop(FILES, None) if isinstance(found, dict) else None
    record = parse_weights_record(found, folder / RECORD)
    if files != describe_weights(folder):
        raise make_error(folder / RECORD, "tells of other weights than those beside it")
    return record


def parse_weights_record(found: Any, path: Path) -> WeightsRecord:
    """Returns the record that the content of a file describes.

    Raises:
        ProvenanceError: It has other fields, or values of other types.
    """
    kinds = WeightsRecord.__annotations__
    if not isinstance(found, dict) or set(found) != set(kinds):
        raise make_error(path, f"is damaged: weights must have the fields {', '.join(kinds)}")
    for name, kind in kinds.items():
        if not isinstance(found[name], kind):
            raise make_error(path, f"is damaged: {name} of the weights is {found[name]!r}")
    return WeightsRecord(**found)


def read_provenance_file(folder: Path) -> dict[str, Any]:
    """Returns the entries of `provenance.json` in a folder; none if there is no such file.

    Raises:
        ProvenanceError: It is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise make_error(path, f"is damaged ({error})") from error
    if change := describe_change(path):
        raise make_error(path, f"is damaged or was changed: {change}")
    if not isinstance(record, dict):
        raise make_error(path, "is damaged: it holds no entries")
    return record
