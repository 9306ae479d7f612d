# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the folder that is published, from which anybody can use the model.

    model.safetensors                          the backbone alone, which every Auto class loads
    pretraining_heads.safetensors              heads and centres: `EsViTForPreTraining` and `--init_from` load both
    model.safetensors.index.pretraining.json   files by this index
    config.json, preprocessor_config.json      with auto_map; the evaluation transform
    *.py                                       the code, for trust_remote_code
    README.md                                  the model card (`card.py`)
    provenance.json                            where the weights came from, as far as that is recorded
    training_options.yaml, curves.png          if a run made it: its options as a recipe, and its curves

In transformers' own format (`native`) the folder holds the backbone alone, without code.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from safetensors.torch import load_file, save_file

from modeling_esvit import EsViTForPreTraining, EsViTModel
from modeling_esvit.conversion.native_swin import load_backbone, save_native
from modeling_esvit.errors import EsViTError
from modeling_esvit.modeling_esvit import PRETRAINING_INDEX
from modeling_esvit.storage.atomic import replace_folder
from modeling_esvit.storage.manifest import ForeignFilesError, check_own, find_damage, list_names
from modeling_esvit.storage.run_log import LOG
from modeling_esvit.storage.weights_record import write_weights_record
from training.figures.curves import draw_curves
from training.monitoring.collapse import MIN_RANK
from training.publishing.source import Source, load_model


WEIGHTS = "model.safetensors"
HEADS = "pretraining_heads.safetensors"
OPTIONS = "training_options.yaml"
CURVES = "curves.png"
LARGE = 10_000_000  # bytes; the Hub keeps files beyond this in its large file storage


class FolderError(EsViTError, OSError):
    """Raised when the folder cannot be written, or holds something else."""


@contextmanager
def stage_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `folder` after the block.

    Raises:
        FolderError: `folder` holds something that is not an earlier publication, or a file cannot be read or written.
    """
    try:
        check_own(folder)
    except ForeignFilesError as error:
        raise FolderError(f"{error} (--output)") from error
    if any(folder.glob("*")) and (damage := find_damage(folder)):
        raise FolderError(
            f"{folder} was published before, and has changed since: {'; '.join(damage)}. Name another folder "
            "(--output), or move your changes away."
        )
    try:
        with replace_folder(folder) as staged:
            yield staged
    except OSError as error:
        raise FolderError(f"The folder {folder} was not written: {error}.") from error


def write_model(source: Source, folder: Path, native: bool) -> EsViTForPreTraining | EsViTModel:
    """Writes everything but the card. Returns the model.

    Raises:
        SourceError: The model cannot be loaded.
        ConversionError: transformers' own format cannot carry it.
    """
    model = load_model(source.model)
    if native:
        save_native(load_backbone(source.model), folder)
    else:
        write_weights(model, source.model / "preprocessor_config.json", folder)
    write_weights_record(folder, source.weights)
    write_history(source, folder)
    return model


def write_weights(model: EsViTForPreTraining | EsViTModel, preprocessor: Path, folder: Path) -> None:
    if preprocessor.is_file():
        shutil.copy(preprocessor, folder)  # kept by save_pretrained
    backbone = model.esvit if isinstance(model, EsViTForPreTraining) else model
    backbone.save_pretrained(folder)
    if isinstance(model, EsViTForPreTraining):
        write_heads(model, folder)


def write_heads(model: EsViTForPreTraining, folder: Path) -> None:
    """Writes heads and centres beside the backbone, and the index that names both."""
    heads = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("esvit.")}
    save_file(heads, folder / HEADS, metadata={"format": "pt"})
    backbone = load_file(folder / WEIGHTS)
    size = sum(tensor.nbytes for tensor in [*heads.values(), *backbone.values()])
    files = {**dict.fromkeys(backbone, WEIGHTS), **dict.fromkeys(heads, HEADS)}
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(files.items()))}
    (folder / PRETRAINING_INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_history(source: Source, folder: Path) -> None:
    """Writes the options of a run, and the curves of its log."""
    if source.options:
        (folder / OPTIONS).write_text(yaml.safe_dump(source.recipe(), sort_keys=False), encoding="utf-8")
    if source.records:
        log = folder / LOG
        log.write_text("".join(json.dumps(record) + "\n" for record in source.records), encoding="utf-8")
        draw_curves(log, folder / CURVES, source.options["num_prototypes"], MIN_RANK)
        log.unlink()


def list_files(folder: Path) -> dict[str, int]:
    """Returns every file of a folder with its size in bytes, but for the record of them.

    `.manifest.json` protects the folder on this machine, and would not be true of a commit: the Hub has checksums of
    its own, and adds files.
    """
    return {name: (folder / name).stat().st_size for name in list_names(folder)}


def describe_files(files: dict[str, int]) -> str:
    lines = [f"  {size:>13,}  {name}{' (large file)' if size > LARGE else ''}" for name, size in files.items()]
    return "\n".join([*lines, f"  {sum(files.values()):>13,}  bytes in {len(files)} files"])
