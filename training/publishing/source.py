# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the model to publish, in a run or in a model folder, with everything that is known of its training."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modeling_esvit import EsViTForPreTraining, EsViTModel
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.models import NoImageModelError, guard_weights, name_transformers_errors, read_fields
from modeling_esvit.modeling_esvit import PRETRAINING_INDEX
from modeling_esvit.storage.manifest import MANIFEST, find_damage
from modeling_esvit.storage.run_folders import OPTIONS, check_whole, list_models
from modeling_esvit.storage.run_log import LOG, read_log
from modeling_esvit.storage.weights_record import WeightsRecord, read_weights_record
from training.monitoring.next_commands import make_upload_command
from training.options.hub_names import is_hub_name
from training.options.pretrain_options import FREE_TO_CHANGE
from training.options.provenance import Provenance
from training.options.public_options import select_public_options
from training.state.checkpoint_folders import PROGRESS, is_complete
from training.state.checkpoints import read_progress
from training.state.provenance_record import describe_run, find_start, read_options, read_provenances


CHECKPOINTS = ("final", "best", "last")
START = "start_"  # before the names of the accuracies of what a run began with, in its log
KINDS: dict[str, Any] = {"EsViTForPreTraining": EsViTForPreTraining, "EsViTModel": EsViTModel}


class SourceError(EsViTError, ValueError):
    """Raised when there is no whole model of this project to publish, or a file that describes it is damaged."""


@dataclass
class Source:
    """Holds where a model lies and, if a run made it, what is known of that run.

    Attributes:
        model: The model folder.
        weights: What is recorded of its weights; None if nothing is.
        options: All options of the run; empty if no run is known.
        provenances: Where the data and models came from that these name, as far as the run recorded it.
        records: The lines of its log up to this model.
        start: The accuracies of what the run began with, by the names of a k-NN result.
        step: Optimizer steps behind this model.
        processes: Number of processes that trained it, in the end.
        images_per_step: Images that all of them took for a step.
    """

    model: Path
    weights: WeightsRecord | None = None
    options: dict[str, Any] = field(default_factory=dict)
    provenances: dict[str, Provenance] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    start: dict[str, float] = field(default_factory=dict)
    step: int | None = None
    processes: int | None = None
    images_per_step: int | None = None

    def scores(self) -> dict[str, float]:
        """Returns the log's k-NN evaluation of this very model; empty if it was not evaluated."""
        found = [record for record in self.records if record["step"] == self.step and "knn_test_images" in record]
        return found[-1] if found else {}

    def public_options(self) -> dict[str, Any]:
        """Returns the options that may be published, with data and models by their public names."""
        return select_public_options(self.options, self.provenances)

    def find_name(self, option: str) -> str | None:
        """Returns the name on the Hub of the data or model that an option of the run names, if it came from there."""
        found = self.provenances.get(option)
        return None if found is None else found.name

    def find_start(self) -> Provenance | None:
        """Returns where the weights came from that the run started from; None of random ones, or without a run."""
        return find_start(self.options, self.provenances) if self.options else None

    def find_base_model(self) -> str | None:
        """Returns the model on the Hub from whose weights the run started, if there is one."""
        start = self.find_start()
        return start.name if start is not None and start.name and is_hub_name(start.name) else None

    def recipe(self) -> dict[str, Any]:
        """Returns the public options that decide the result."""
        return {name: value for name, value in self.public_options().items() if name not in FREE_TO_CHANGE}


def find_source(path: Path, checkpoint: str | None = None) -> Source:
    """Returns the model of a run or of a model folder.

    Args:
        path: Folder of a run or of a model. The final model of a run stands for the run.
        checkpoint: One of CHECKPOINTS of a run; None takes the first of these that it has.

    Raises:
        SourceError: `path` holds neither, or not this checkpoint, or it is damaged.
        ProvenanceError: What is recorded of the run or of the weights is damaged.
    """
    if path.is_file():
        raise SourceError(
            f"{path} is a file. To publish a checkpoint of the original, first convert it with "
            f"`python -m modeling_esvit.convert_original {path} FOLDER`; then publish FOLDER."
        )
    if (path / OPTIONS).is_file():
        return find_model_of_run(path, checkpoint)
    if not (path / "config.json").is_file():
        what = "is neither a run nor a model folder" if path.is_dir() else "does not exist"
        raise SourceError(f"{path} {what}; name the folder of a run (options.yaml) or of a model (config.json).")
    if checkpoint is not None:
        raise SourceError(f"{path} is a model folder, which has no checkpoints to choose from; name the run's folder.")
    if path == list_models(path.parent).get("final") and (path.parent / OPTIONS).is_file():
        return find_model_of_run(path.parent, "final")
    return Source(path, read_weights_record(path))


def find_model_of_run(run: Path, checkpoint: str | None) -> Source:
    available = list_models(run)
    chosen = checkpoint or next(iter(available), None)
    if chosen not in available:
        known = f"it has {' and '.join(available)}" if available else "it saves one with its first checkpoint"
        raise SourceError(f"The run {run} has no {chosen or 'finished'} model; {known}.")
    options, provenances = read_options(run / OPTIONS), read_provenances(run)
    weights = describe_run(options, provenances)
    source = Source(available[chosen], weights, options, provenances, read_log(run / LOG))
    behind = run / "checkpoints" / ("last" if chosen == "final" else chosen)
    if not is_complete(behind):  # somebody deleted the checkpoints of a finished run
        return source
    if (behind / MANIFEST).exists() and (damage := find_damage(behind, [PROGRESS.as_posix()])):
        raise SourceError(
            f"The checkpoint {behind}, which tells how far the model is, is damaged: {damage[0]}. Name another one "
            "(--checkpoint), or a copy of the model's folder."
        )
    progress = read_progress(behind)
    start = {name: value for record in source.records for name, value in record.items() if name.startswith(START)}
    records = [record for record in source.records if record["step"] <= progress.step]
    images = progress.lanes.images_per_step
    source = replace(source, start={name.removeprefix(START): value for name, value in start.items()})
    return replace(source, records=records, step=progress.step, processes=progress.world_size, images_per_step=images)


@contextmanager
def name_damage(folder: Path) -> Iterator[None]:
    """Turns what transformers says of a damaged model into an error of this room.

    Raises:
        SourceError: See above.
    """
    try:
        with name_transformers_errors(str(folder)):
            yield
    except NoImageModelError as error:
        raise SourceError(f"The model in {folder} cannot be loaded: {error}") from error


def load_model(folder: Path) -> EsViTForPreTraining | EsViTModel:
    """Loads the model of a folder, with its heads if it has any, in the precision of its file.

    Raises:
        DamagedModelError: A file of it is not as this project wrote it.
        SourceError: The model is of another type, is damaged, or lacks tensors.
    """
    check_whole(folder)
    with name_damage(folder):
        config = read_fields(str(folder))
    if config.get("model_type") != "esvit":
        raise SourceError(
            f"{folder} holds a model of type {config.get('model_type')!r}, not 'esvit'. Publish the model that it was "
            "converted from, with --native."
        )
    kind = KINDS.get(next(iter(config.get("architectures") or []), ""))
    if kind is None:
        raise SourceError(
            f"{folder} holds {config.get('architectures')}; only {list(KINDS)} can be published by this program. A "
            f"classifier of finetune.py is published by huggingface_hub: {make_upload_command(folder)}"
        )
    kind = EsViTForPreTraining if (folder / PRETRAINING_INDEX).is_file() else kind
    with name_damage(folder), guard_weights(str(folder)):
        model, loading = kind.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    if loading["missing_keys"]:
        raise SourceError(f"{folder} is incomplete: it lacks the tensors {', '.join(sorted(loading['missing_keys']))}.")
    return model.eval()
