# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the model of a pretraining run, so that the run's folder can stand for it, and checks that it is whole."""

import os
import sys
from functools import cache
from pathlib import Path

from modeling_esvit.errors import EsViTError
from modeling_esvit.storage.manifest import MANIFEST, find_damage, has_damaged_record, read_record
from modeling_esvit.storage.paths import expand_home


CONFIG = "config.json"  # of every model folder
OPTIONS = "options.yaml"  # of every run
NAMED = 3  # models that a message names
CHECKPOINTS = (".pth", ".pt", ".tar", ".bin", ".ckpt", ".safetensors")  # files of weights
CARD = "README.md"  # which is not read when a model is loaded, and is for its owner to edit
ADVICE = f"name a folder with a {CONFIG}, the folder of a run, or a model on the Hub. Images come after the model."


class NoModelFolderError(EsViTError, OSError):
    """Raised when a folder holds no model, or a file is named in its place."""


def list_models(run: Path) -> dict[str, Path]:
    """Returns the model folders of a run by name: the final one, of the best checkpoint, and of the last one."""
    folders = {"final": run / "teacher"}
    folders |= {name: run / "checkpoints" / name / "teacher" for name in ("best", "last")}
    return {name: folder for name, folder in folders.items() if (folder / CONFIG).is_file()}


def is_model(folder: Path) -> bool:
    """Returns whether a folder is one of a model, or of a run that has one."""
    return (folder / CONFIG).is_file() or bool(list_models(folder))


def find_model(name: str) -> str:
    """Returns the model folder that a run's folder stands for, and says which; a name on the Hub as it is.

    Raises:
        NoModelFolderError: it is a folder without a model, or a file.
    """
    folder = expand_home(name)
    if folder.is_file():
        raise NoModelFolderError(f"{name} is a file, no model: {advise_on_file(folder)}")
    if not folder.is_dir() or (folder / CONFIG).is_file():
        return name
    models = list_models(folder)
    if not models:
        raise NoModelFolderError(f"{name} holds no model: {advise_on_folder(folder)}")
    kind, found = next(iter(models.items()))
    say_once(f"{name} is the folder of a run: takes its {kind} model, {found}")
    return str(found)


class DamagedModelError(EsViTError, OSError):
    """Raised when a model that this project wrote is not as it was written."""


def check_whole(folder: Path) -> None:
    """Checks that a model is as this project wrote it, alone or in a checkpoint, if a record says how that was.

    Raises:
        DamagedModelError: A file of it has changed.
    """
    real = folder.resolve()
    for home, prefix in ((real, ""), (real.parent, f"{real.name}/")):
        if has_damaged_record(home):
            raise DamagedModelError(
                f"Whether the model in {folder} is whole cannot be seen: its record, {home / MANIFEST}, is damaged. If "
                "you trust the model, delete the record."
            )
        names = [name for name in read_record(home)["files"] if name.startswith(prefix) and name != prefix + CARD]
        if names and (damage := find_damage(home, names)):
            raise DamagedModelError(
                f"The model in {folder} is damaged or was changed: {'; '.join(damage)}. If you changed it yourself, "
                f"name a copy of the folder without {MANIFEST}."
            )


@cache
def say_once(line: str) -> None:
    """Prints a line, the first time that this process finds it worth saying: programs load a model more than once."""
    if not int(os.environ.get("RANK", 0)):
        print(line, file=sys.stderr)


def advise_on_folder(folder: Path) -> str:
    """Returns what to do about a folder that holds no model."""
    if (folder / OPTIONS).is_file():
        return "the run has not saved one yet; it does so with its first checkpoint."
    below = [path.parent for depth in ("*", "*/*") for path in sorted(folder.glob(f"{depth}/{CONFIG}"))][:NAMED]
    if below:
        return f"there are models below it, so name one: {', '.join(map(str, below))}."
    return ADVICE


def advise_on_file(file: Path) -> str:
    """Returns what to do about a file that is named in place of a model."""
    if (file.parent / CONFIG).is_file():
        return f"name the folder in which it lies, {file.parent}."
    if file.suffix in CHECKPOINTS:
        return f"convert a checkpoint first, by python -m modeling_esvit.convert_original {file} FOLDER."
    return ADVICE
