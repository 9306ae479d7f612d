# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Records in a run's folder where its data and models came from, for whoever publishes it later from another place."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modeling_esvit.backbone_probe import TIMM_FOLDER, TIMM_PREFIX
from modeling_esvit.storage.atomic import rewrite_recorded
from modeling_esvit.storage.manifest import describe_change
from modeling_esvit.storage.paths import expand_home
from modeling_esvit.storage.run_folders import OPTIONS, list_models
from modeling_esvit.storage.weights_record import (
    RECORD,
    ProvenanceError,
    WeightsRecord,
    make_error,
    parse_weights_record,
    read_provenance_file,
    read_weights_record,
)
from training.options.errors import OptionError
from training.options.pretrain_options import PythonParser, to_arguments
from training.options.pretrain_options import read_options as parse_words
from training.options.provenance import KINDS, Provenance
from training.options.public_options import NAMED_MODELS, UNKNOWN, find_provenances
from training.options.recipes import read_yaml
from training.views.draw import POLICIES


ADVICE = "name a copy of the model's folder in the run instead."
FIELDS = ("kind", "name", "split")


def write_provenances(folder: Path, options: Mapping[str, Any]) -> None:
    """Writes where the data and models came from that the options name, and what is recorded of these models' weights.

    What was recorded before stays for an option of the same value: a continued run does not load `init_from` again.

    Raises:
        ProvenanceError: A record is damaged, of this run or of one of the models.
    """
    before = read_record(folder)
    named = {name: (options[name], found) for name, found in find_provenances(options).items()}
    record = {
        name: before[name]
        if name in before and before[name]["value"] == value
        else make_entry(value, found, name in NAMED_MODELS)
        for name, (value, found) in named.items()
    }
    rewrite_recorded(folder / RECORD, json.dumps(record, indent=1) + "\n")


def make_entry(value: str, found: Provenance, is_model: bool) -> dict[str, Any]:
    """Returns the entry of an option, which has `weights` only if something is recorded of them."""
    entry = {"value": value, **{field: getattr(found, field) for field in FIELDS}}
    weights = find_weights_record(value) if is_model and found.kind == "folder" else None
    return entry if weights is None else {**entry, "weights": weights._asdict()}


def find_weights_record(model: str) -> WeightsRecord | None:
    """Returns what is recorded of a model in a folder: there, or by the run that trained it.

    Raises:
        ProvenanceError: The record, or the options of the run, are damaged.
    """
    folder = expand_home(model.removeprefix(TIMM_PREFIX).removeprefix(TIMM_FOLDER))
    run = folder.parent if folder == list_models(folder.parent).get("final") else folder
    if (run / OPTIONS).is_file():
        return describe_run(read_options(run / OPTIONS), read_provenances(run))
    return read_weights_record(folder)


def describe_run(options: Mapping[str, Any], provenances: Mapping[str, Provenance]) -> WeightsRecord:
    """Returns what the options of a run and its record tell of the weights of its teacher."""
    data = provenances.get("data", UNKNOWN).public_data
    start = describe_start(find_start(options, provenances))
    training = f"without labels on {data} (task {options['task']}), starting from {start}"
    return WeightsRecord("the teacher of a run of EsViT", training, by_esvit=True, is_teacher=True)


def find_start(options: Mapping[str, Any], provenances: Mapping[str, Provenance]) -> Provenance | None:
    """Returns where the weights came from that a run started from; None if these were random."""
    starts = {"init_from": options["init_from"], "backbone": options["backbone_weights"] and options["backbone"]}
    return next((provenances.get(name, UNKNOWN) for name, value in starts.items() if value), None)


def describe_start(start: Provenance | None) -> str:
    """Says in words where the first weights of a run came from, as the object of a sentence."""
    if start is None:
        return "random weights"
    if start.weights is not None:
        return start.weights.describe()
    if start.name is not None:
        return f"the weights of `{start.name}`"
    return f"the weights of {start.public_model}, of whose training nothing is recorded"


def read_provenances(folder: Path) -> dict[str, Provenance]:
    """Returns what was recorded, by the names of options; nothing of a run without a record.

    Raises:
        ProvenanceError: The record is damaged.
    """
    path = folder / RECORD
    found: dict[str, Provenance] = {}
    for name, entry in read_record(folder).items():
        weights = parse_weights_record(entry["weights"], path) if "weights" in entry else None
        found[name] = Provenance(entry["kind"], entry["name"], entry["split"], weights)
    return found


def read_record(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the content of the record.

    Raises:
        ProvenanceError: It is damaged.
    """
    record = read_provenance_file(folder)
    for name, entry in record.items():
        if not isinstance(entry, dict) or not {"value", *FIELDS} <= set(entry):
            raise make_error(folder / RECORD, f"is damaged: the entry {name} lacks fields")
        if entry["kind"] not in KINDS or not all(isinstance(entry[field], str | None) for field in FIELDS):
            raise make_error(folder / RECORD, f"is damaged: the entry {name} has values that cannot be")
    return record


def read_options(file: Path) -> dict[str, Any]:
    """Returns the options of a run.

    Raises:
        ProvenanceError: The file is damaged.
    """
    try:
        options = read_yaml(file)
        if not isinstance(options, dict) or not options:
            raise ProvenanceError(f"{file} holds no options; {ADVICE}")
        if change := describe_change(file):
            raise ProvenanceError(f"{file} is damaged or was changed: {change}, or {ADVICE}")
        made = parse_words(to_arguments(options), PythonParser)
    except OptionError as error:
        raise ProvenanceError(f"{file} is damaged ({' '.join(str(error).split())}); {ADVICE}") from error
    if made.augmentation not in POLICIES:
        raise ProvenanceError(f"{file} is damaged: it names the augmentation {made.augmentation!r}; {ADVICE}")
    return asdict(made)
