# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the result of an evaluation: the JSON file, its table and picture, and its values for a model card."""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from accelerate import PartialState

from modeling_esvit.images.wording import show_number
from modeling_esvit.storage.atomic import write_text
from training.evaluation.arguments import choose_columns
from training.evaluation.public_command import make_public_command
from training.evaluation.result_files import write_result_file
from training.options.provenance import Provenance, find_provenance
from training.state.figure_files import save_figure


if TYPE_CHECKING:
    from matplotlib.figure import Figure


USUAL_K = 20  # neighbours, of the published results
NAMED_DATA = ("model", "train", "test", "test_share")  # options that a result names


@dataclass(frozen=True)
class CardValue:
    """Holds a value of a result for a model card, in the form that `publish.py --metrics` takes.

    Attributes:
        name: the measure, such as "k-NN top-1, k = 20".
        value: a share in 0..1.
        metric: its name on the Hub, such as "accuracy".
        dataset, split: the data of the measurement, a name on the Hub or words that tell nothing of the machine.
        task: its name on the Hub, one of `card_template.TASKS`.
        chance: what guessing gives, as far as it is known.
        before: what the same model gave before it was trained, as far as it was measured.
    """

    name: str
    value: float
    metric: str
    dataset: str
    split: str | None
    task: str = "image-classification"
    chance: float | None = None
    before: float | None = None


def make_card_values(
    values: Mapping[str, float], data: Provenance, metric: str = "accuracy", task: str = "image-classification"
) -> list[CardValue]:
    """Makes the values of a model card from values by name."""
    return [CardValue(name, value, metric, data.public_data, data.split, task) for name, value in values.items()]


def find_test_data(about: Mapping[str, Any]) -> Provenance:
    """Returns the public name of the data that were classified, and their split, which may be a part of a split.

    Args:
        about: "train", "test" and "test_share" of a result.
    """
    if about["test"] is not None:
        return find_provenance(about["test"])
    return name_held_out(find_provenance(about["train"]), about["test_share"])


def name_held_out(data: Provenance, share: float) -> Provenance:
    """Returns the public name of the share of each class that is held out of data."""
    part = f"{100 * share:.4g}% of each class"
    return data._replace(split=f"{part} of {data.split}" if data.split else part)


def describe_data(data: str) -> tuple[str, str | None]:
    """Returns what a card says of DATA or DATA:SPLIT that was just read: its public name, and its split."""
    found = find_provenance(data)
    return found.public_data, found.split


def make_knn_values(
    result: Mapping[str, float], data: Provenance, before: Mapping[str, float] | None = None
) -> list[CardValue]:
    """Makes the value of a model card from k-NN accuracies, which a result names `k20_top1` and so on: top-1 of one k.

    That is the usual k, or else the largest.

    Args:
        before: The result of the same model before it was trained.
    """
    counts = sorted(int(name[1:].removesuffix("_top1")) for name in result if name.endswith("_top1"))
    k = USUAL_K if USUAL_K in counts else counts[-1]
    chance, earlier = result.get("chance", 1 / result["classes"]), (before or {}).get(f"k{k}_top1")
    value = CardValue(f"k-NN top-1, k = {k}", result[f"k{k}_top1"], "accuracy", data.public_data, data.split)
    return [replace(value, chance=chance, before=earlier)]


def describe_evaluation(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the entries of a result that name the model and the data."""
    columns = {name: value for name, value in choose_columns(arguments).items() if value is not None}
    return {name: getattr(arguments, name) for name in (*NAMED_DATA, "n_last_blocks")} | columns


def describe_counts(result: Mapping[str, Any]) -> list[str]:
    """Returns the lines above a table that count classes and images."""
    lines = ["{classes} classes, {train_images} training and {test_images} test images.".format(**result)]
    if result["unknown_class_images"]:
        lines.append(f"{describe_unknown(result['unknown_class_images'])}.")
    return lines


def describe_unknown(number: int) -> str:
    return f"{show_number(number, 'test images')} of no training class, counted as wrong"


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
    figures: Sequence[CardValue] = (),
    draw: Callable[[dict[str, Any]], "Figure"] | None = None,
    details: str = "",
    pictures: Sequence[str] = (),
) -> None:
    """Prints the table, and writes the result to `output`, with table (.md) and picture (.png) beside it.

    Only the main process does so.

    Args:
        figures: are added to the file as the entry "figures", together with the entry "command": the command that is
            running, in which MODEL stands for the result's "model".
        draw: makes the picture from the result. Without it there is no picture.
        details: stand in the file of the table alone, at its end.
        pictures: ends of the names of those that the caller writes beside `output`.
    """
    if not PartialState().is_main_process:
        return
    print(table)
    if output is None:
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    if figures:
        command = make_public_command(sys.argv, str(result["model"]))
        result = result | {"command": command, "figures": [asdict(figure) for figure in figures]}
    about = [f"{name}: {result[name]}" for name in ("train", "test", "test_share", "data") if result.get(name)]
    text, picture = [f"# {title}", ", ".join(about), table], output.with_suffix(".png")
    endings = [".md", *([".png"] if draw is not None else pictures)]
    write_result_file(output, result, [output.stem + ending for ending in endings])
    if draw is not None:
        save_figure(draw(result), picture)
        text.append(f"![{title}]({quote(picture.name)})")
    text += [details] if details else []
    write_text(output.with_suffix(".md"), "\n\n".join([*text, ""]))
