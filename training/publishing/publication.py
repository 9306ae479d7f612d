# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The folder that is published: a model as anybody can use it.

    model.safetensors                          the backbone alone, which every Auto class loads
    pretraining_heads.safetensors              heads and centres: `EsViTForPreTraining` and `--init_from` load both
    model.safetensors.index.pretraining.json   files by this index
    config.json, preprocessor_config.json      with auto_map; the evaluation transform
    *.py                                       the code, for trust_remote_code
    README.md                                  the model card
    training_options.yaml, curves.png          of a run: its options as a recipe, and its losses and k-NN accuracy

In transformers' own format (`native`) the backbone alone, without code.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from modeling_esvit import EsViTConfig, EsViTForPreTraining, EsViTModel
from modeling_esvit.conversion.native_swin import load_backbone, save_native
from modeling_esvit.errors import EsViTError
from modeling_esvit.modeling_esvit import PRETRAINING_INDEX
from training.evaluation.public_names import public_name
from training.monitoring.monitor import record_of
from training.monitoring.pictures import draw_curves
from training.options.pretrain_options import FREE_TO_CHANGE


WEIGHTS = "model.safetensors"
HEADS = "pretraining_heads.safetensors"
OPTIONS = "training_options.yaml"
CURVES = "curves.png"
CHECKPOINTS = ("final", "best", "last")
DATA_OPTIONS = ("data", "knn_train", "knn_test", "init_from")


class SourceError(EsViTError, ValueError):
    """What is to be published is no model of this project, or is not whole."""


@dataclass
class Source:
    """A model folder and, if it is of a run, the run's options, its log up to that model, its steps and processes."""

    model: Path
    options: dict[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    step: int | None = None
    processes: int | None = None

    def scores(self) -> dict[str, float]:
        """What k-NN evaluation said of this very model: names as in `log.jsonl`; empty if it was not evaluated."""
        found = [record for record in self.records if record["step"] == self.step and "knn_test_images" in record]
        return found[-1] if found else {}


# -- what is published -------------------------------------------------------------------------------------------------


def find_source(path: Path, checkpoint: str | None = None) -> Source:
    """A run's model (`checkpoint` of CHECKPOINTS says which; by default the final one, else the best, else the last), or
    the model that a folder holds.

    Raises:
        SourceError: there is nothing of that kind.
    """
    if path.is_file():
        raise SourceError(
            f"{path} is a file. A checkpoint of the original is made a model folder by "
            f"`python -m modeling_esvit.convert_original {path} FOLDER`; then publish FOLDER."
        )
    if (path / "options.yaml").is_file():
        return source_of_run(path, checkpoint)
    if not (path / "config.json").is_file():
        what = "is neither a run nor a model folder" if path.is_dir() else "does not exist"
        raise SourceError(f"{path} {what}; name the folder of a run (options.yaml) or of a model (config.json).")
    if checkpoint is not None:
        raise SourceError(f"{path} is a model folder, which has no checkpoints to choose from; name the run's folder.")
    return Source(path)


def source_of_run(run: Path, checkpoint: str | None) -> Source:
    folders = {"final": run / "teacher"}
    folders |= {name: run / "checkpoints" / name / "teacher" for name in CHECKPOINTS[1:]}
    there = [name for name in CHECKPOINTS if (folders[name] / "config.json").is_file()]
    chosen = checkpoint or next(iter(there), None)
    if chosen not in there:
        known = f"it has {' and '.join(there)}" if there else "it has none yet"
        raise SourceError(f"The run {run} has no {chosen or 'finished'} model; {known}.")
    options = options_of(run)
    log = run / "log.jsonl"
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    records = [values for line in lines if (values := record_of(line)) is not None]  # a killed run's last may be half
    progress = progress_of(run / "checkpoints" / ("last" if chosen == "final" else chosen))
    step = progress.get("step")
    kept = [record for record in records if step is None or record["step"] <= step]
    return Source(folders[chosen], options, kept, step, progress.get("world_size"))


def options_of(run: Path) -> dict[str, Any]:
    """Raises:
    SourceError: the file of the run's options is damaged.
    """
    file = run / "options.yaml"
    try:
        options = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SourceError(f"{file} is damaged ({error}); name the model's folder in the run instead.") from error
    if not isinstance(options, dict):
        raise SourceError(f"{file} holds no options; name the model's folder in the run instead.")
    return options


def progress_of(checkpoint: Path) -> dict[str, Any]:
    """How far the run was; nothing where the checkpoints were deleted."""
    file = checkpoint / "training_state" / "progress.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def public_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a run with what may be told of its data."""
    return options | {name: public_name(str(options[name])) for name in DATA_OPTIONS if options.get(name) is not None}


def recipe_for_others(options: dict[str, Any]) -> dict[str, Any]:
    """The options that decide the result; many of the others name folders of the machine."""
    return {name: value for name, value in public_options(options).items() if name not in FREE_TO_CHANGE}


# -- the folder --------------------------------------------------------------------------------------------------------


def check_destination(folder: Path) -> None:
    """Raise SourceError if `folder` holds something that is not an earlier publication."""
    if folder.is_file():
        raise SourceError(f"{folder} is a file; name another folder (--folder).")
    if folder.is_dir() and any(folder.iterdir()):
        if not all((folder / name).is_file() for name in ("config.json", "README.md")) or (folder / "teacher").exists():
            raise SourceError(f"{folder} holds other files; name another folder (--folder).")


def load_network(folder: Path) -> EsViTForPreTraining | EsViTModel:
    """The model of a folder, with its heads if it has any, in the precision of its file.

    Raises:
        SourceError: it is of another type, is damaged, or lacks tensors.
    """
    config = EsViTConfig.get_config_dict(folder)[0]
    if config.get("model_type") != "esvit":
        raise SourceError(
            f"{folder} holds a model of type {config.get('model_type')!r}, not 'esvit'. Publish the model that it was "
            "converted from, with --native."
        )
    kinds = {"EsViTForPreTraining": EsViTForPreTraining, "EsViTModel": EsViTModel}
    kind: Any = kinds.get(next(iter(config.get("architectures") or []), ""))
    if kind is None:
        raise SourceError(f"{folder} holds {config.get('architectures')}; a model to publish is one of {list(kinds)}.")
    kind = EsViTForPreTraining if (folder / PRETRAINING_INDEX).is_file() else kind
    try:
        model, loading = kind.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    except SafetensorError as error:
        raise SourceError(f"The weights in {folder} are damaged: {error}.") from error
    absent = sorted(loading["missing_keys"])
    if absent:
        raise SourceError(f"{folder} is not whole: it lacks the tensors {', '.join(absent)}.")
    return model.eval()


def write_weights(source: Source, folder: Path, native: bool) -> EsViTForPreTraining | EsViTModel:
    """Everything but card, options and picture. Returns the model.

    Raises:
        SourceError: see [`load_network`]. ConversionError: transformers' own format cannot carry it.
    """
    model = load_network(source.model)
    if native:
        save_native(load_backbone(source.model), folder)
        return model
    processor = source.model / "preprocessor_config.json"
    if processor.is_file():
        shutil.copy(processor, folder)  # kept by save_pretrained
    backbone = model.esvit if isinstance(model, EsViTForPreTraining) else model
    backbone.save_pretrained(folder)
    if isinstance(model, EsViTForPreTraining):
        write_heads(model, folder)
    return model


def write_heads(model: EsViTForPreTraining, folder: Path) -> None:
    """Heads and centres beside the backbone, and the index that names both."""
    heads = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("esvit.")}
    save_file(heads, folder / HEADS, metadata={"format": "pt"})
    backbone = load_file(folder / WEIGHTS)
    size = sum(tensor.nbytes for tensor in [*heads.values(), *backbone.values()])
    files = {**dict.fromkeys(backbone, WEIGHTS), **dict.fromkeys(heads, HEADS)}
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(files.items()))}
    (folder / PRETRAINING_INDEX).write_text(json.dumps(index, indent=2) + "\n")


def write_history(source: Source, folder: Path) -> None:
    """Of a run: its options, and the picture of its log."""
    if source.options:
        (folder / OPTIONS).write_text(yaml.safe_dump(recipe_for_others(source.options), sort_keys=False))
    if source.records:
        log = folder / "log.jsonl"
        log.write_text("".join(json.dumps(record) + "\n" for record in source.records))
        draw_curves(log, folder / CURVES, source.options["num_prototypes"])
        log.unlink()


def files_of(folder: Path) -> dict[str, int]:
    """Every file and its size in bytes."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
