# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the results of evaluation commands for a card, and refuses those of another model."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from modeling_esvit.storage.paths import expand_home
from modeling_esvit.storage.run_folders import CONFIG, list_models
from training.evaluation.result_files import read_result_file
from training.evaluation.results import CardValue
from training.publishing.card_template import TASKS, format_code
from training.publishing.source import SourceError


MODEL = re.compile(r"(?<!\S)MODEL(?!\S)")  # stands for the published model in the command of a result
BACKBONE = ("esvit.", "encoder.")  # how the names of its tensors begin, with heads beside it or without


def read_metrics(result: Path, repo_id: str, model: Path) -> tuple[list[CardValue], str]:
    """Returns the values that an evaluation command wrote into its result, and that command.

    Args:
        model: The model folder that is published.

    Raises:
        SourceError: The file is no such result, or that of another model.
    """
    try:
        content = read_result_file(result)
        figures = [CardValue(**figure) for figure in content["figures"]]
        command, count = MODEL.subn(repo_id, content["command"])
        if not count:
            raise ValueError("a command of another model: MODEL stands for the published one")
        if not figures or not all(map(is_valid, figures)):
            raise ValueError("no figures, or one that is not a share from 0 to 1 of a known task")
    except OSError as error:
        raise SourceError(f"--metrics: {result} cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"--metrics: {result} has no figures for a card ({error!r}). Name a file that --output of knn.py, "
            "linear_probe.py or another evaluation command wrote; see training/README.md."
        ) from error
    check_measured(result, content.get("model"), model)
    return figures, format_code(command)


def is_valid(figure: CardValue) -> bool:
    shares = [figure.value, *(share for share in (figure.chance, figure.before) if share is not None)]
    return figure.task in TASKS and all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares)


def check_measured(result: Path, measured: Any, model: Path) -> None:
    """Checks that a result is not that of another model in a folder; of other names nothing is known here.

    Raises:
        SourceError: It is.
    """
    folder = expand_home(str(measured))
    found = next((each for each in (folder, *list_models(folder).values()) if (each / CONFIG).is_file()), None)
    if found is not None and found.resolve() != model.resolve() and not has_same_backbone(found, model):
        raise SourceError(
            f"--metrics: {result} has the values of {found}, which is another model than {model}. Evaluate the one "
            "that you publish, or leave the file out."
        )


def has_same_backbone(one: Path, other: Path) -> bool:
    """Returns whether two model folders hold the same tensors of a backbone, whatever else."""
    first, second = map(load_backbone, (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def load_backbone(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    return {name.removeprefix("esvit."): tensor for name, tensor in tensors.items() if name.startswith(BACKBONE)}
