# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the result of an evaluation: the JSON file, its table and picture, and its figures for a model card."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from accelerate import PartialState

from modeling_esvit.storage.atomic import write_text
from training.data.named_data import split_data_name
from training.evaluation.public_names import public_command, public_name
from training.state.figure_files import save_figure


if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CardFigure:
    """Holds a figure of a result for a model card, as `publish.py --metrics` takes it.

    Attributes:
        name: says what was measured, such as "k-NN top-1, k = 20".
        value: a share in 0..1.
        metric: as the Hub names it: "accuracy", ...
        dataset, split: the data it was measured on, without folders of the machine.
        task: as the Hub names it, one of `card_template.TASKS`.
    """

    name: str
    value: float
    metric: str
    dataset: str
    split: str | None
    task: str = "image-classification"


def make_card_figures(
    values: Mapping[str, float], data: str, metric: str = "accuracy", task: str = "image-classification"
) -> list[CardFigure]:
    """Returns figures by their names, measured on DATA or DATA:SPLIT."""
    dataset, split = split_data_name(data)
    return [CardFigure(name, value, metric, public_name(dataset), split, task) for name, value in values.items()]


def make_knn_figures(result: Mapping[str, float], data: str) -> list[CardFigure]:
    """Returns the figures of k-NN accuracies, which are named `k20_top1` and so on."""
    named = [name.split("_top") for name in result if "_top" in name]
    return make_card_figures({f"k-NN top-{top}, k = {k[1:]}": result[f"{k}_top{top}"] for k, top in named}, data)


def describe_evaluation(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the entries of a result that say what was evaluated."""
    return {name: getattr(arguments, name) for name in ("model", "train", "test", "n_last_blocks")}


def describe_counts(result: Mapping[str, Any]) -> list[str]:
    """Returns the lines above a table that count classes and images."""
    lines = ["{classes} classes, {train_images} training and {test_images} test images.".format(**result)]
    if result["unknown_class_images"]:
        lines.append("{unknown_class_images} test images are of no training class and count as wrong.".format(**result))
    return lines


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns the lines of a table in Markdown."""
    return [format_row(header), format_row(["---"] * len(header)), *map(format_row, rows)]


def format_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_result(
    result: dict[str, Any],
    title: str,
    table: str,
    output: Path | None,
    figures: Sequence[CardFigure] = (),
    draw: Callable[[dict[str, Any]], "Figure"] | None = None,
) -> None:
    """Prints the table, and writes the result to `output`, with table (.md) and picture (.png) beside it.

    The main process alone does so.

    Args:
        figures: become the entry "figures" of the file. Its entry "command" is the command that is running, in which
            MODEL stands for the result's "model".
        draw: makes the picture from the result.
    """
    if not PartialState().is_main_process:
        return
    print(table)
    if output is None:
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    if figures:
        command = public_command(sys.argv, str(result["model"]))
        result = result | {"command": command, "figures": [asdict(figure) for figure in figures]}
    about = [f"{name}: {result[name]}" for name in ("train", "test", "data") if name in result]
    write_text(output, json.dumps(result, indent=2) + "\n")
    text, picture = [f"# {title}", ", ".join(about), table], output.with_suffix(".png")
    if draw is not None:
        save_figure(draw(result), picture)
        text.append(f"![{title}]({quote(picture.name)})")
    write_text(output.with_suffix(".md"), "\n\n".join([*text, ""]))
