# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Records in a run's folder where its data and models came from, for whoever publishes it later from another place."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modeling_esvit.errors import EsViTError
from modeling_esvit.storage.atomic import write_text
from training.options.provenance import Provenance
from training.options.public_options import find_provenances


RECORD = "provenance.json"


class ProvenanceError(EsViTError, ValueError):
    """Raised when the record of a run is damaged."""


def write_provenances(folder: Path, options: Mapping[str, Any]) -> None:
    """Writes where the data and models came from that the options name.

    What was recorded before stays for an option of the same value: a continued run does not load `init_from` again.
    """
    before = read_record(folder)
    now = {name: {"value": options[name], **found._asdict()} for name, found in find_provenances(options).items()}
    kept = {name: old for name, old in before.items() if name in now and old["value"] == now[name]["value"]}
    write_text(folder / RECORD, json.dumps(now | kept, indent=1) + "\n")


def read_provenances(folder: Path) -> dict[str, Provenance]:
    """Returns what was recorded, by the names of options; nothing of a run without a record.

    Raises:
        ProvenanceError: The record is damaged.
    """
    fields = Provenance._fields
    return {name: Provenance(*(found[field] for field in fields)) for name, found in read_record(folder).items()}


def read_record(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the content of the record.

    Raises:
        ProvenanceError: It is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: {field: found[field] for field in ("value", *Provenance._fields)} for name, found in record.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProvenanceError(
            f"{path}, which records where the data came from, is damaged ({type(error).__name__} on reading it). "
            "Delete it; then nothing that the run names is published."
        ) from error
