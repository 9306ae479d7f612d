# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What the evaluation commands have in common: their arguments, labelled data, features, scores and results."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor

from modeling_esvit.embed.engine import FeatureError
from modeling_esvit.embed.files import OutputError
from modeling_esvit.images.devices import DeviceError, open_device
from modeling_esvit.storage.atomic import write_text
from training.data.sources import DataOptionError, EmptySourceError, ImageSource, open_source
from training.evaluation.public_names import public_command, public_name
from training.features.bank import PART_SIZE, FeatureBank, make_bank
from training.features.extraction import UnlabelledDataError
from training.features.frozen_models import FrozenModel, FrozenModelError, load_frozen
from training.state.figure_files import save_figure


if TYPE_CHECKING:
    from matplotlib.figure import Figure


TOP_K = (1, 5)
METRIC = Path(__file__).parent / "metrics" / "top_k_accuracy"
NO_CLASS = -1  # in a ranking: no more classes; as a label: not a class of the training data

# What a user can put right; the commands print their message alone.
COMMON_ERRORS = (
    *(DataOptionError, EmptySourceError, UnlabelledDataError, FrozenModelError, OutputError),
    *(FeatureError, DeviceError, OSError),
)


def align_labels(
    train: Tensor, test: Tensor, train_names: list[str] | None, test_names: list[str] | None
) -> tuple[Tensor, Tensor, int]:
    """Numbers the classes of the training data 0 .. n-1; test images get the same numbers, or NO_CLASS.

    Classes are the same if their names are; where either data set has no names, if their numbers are.

    Returns:
        train labels [N], test labels [M], n.
    """
    if train_names is not None and test_names is not None:
        number = {name: index for index, name in enumerate(train_names)}
        test = torch.tensor([number.get(name, NO_CLASS) for name in test_names])[test]
    classes, train = train.unique(return_inverse=True)
    position = torch.searchsorted(classes, test).clamp(max=len(classes) - 1)
    return train, position.where(classes[position] == test, NO_CLASS), len(classes)


def top_k_accuracy(ranking: Tensor, labels: Tensor) -> dict[str, float]:
    """{"top1": share in 0..1, "top5": ...} of rankings [N, >= 5], best class first, by the metric of `evaluate`."""
    import evaluate

    metric = evaluate.load(str(METRIC), keep_in_memory=True)
    return metric.compute(predictions=ranking.numpy(), references=labels.numpy(), top_k=TOP_K)


def split_name(data: str) -> tuple[str, str | None]:
    """DATA or DATA:SPLIT -> DATA, SPLIT."""
    name, colon, split = data.rpartition(":")
    is_url = "/" in split and "://" in data  # the colon is that of the scheme, or of a port
    return (name, split) if colon and not is_url and not os.path.exists(data) else (data, None)


def told_apart(train: str, test: str) -> list[tuple[str, str | None]]:
    """Data and split of DATA or DATA:SPLIT, refusing to test on the training data by an omission.

    Raises:
        DataOptionError: both are the same data, and not told apart by splits.
    """
    named = [split_name(train), split_name(test)]
    if named[0][0] == named[1][0] and (None in (named[0][1], named[1][1]) or named[0] == named[1]):
        raise DataOptionError(f"train {train!r} and test {test!r} are the same data: name a split of it for each.")
    return named


def open_train_and_test(train: str, test: str, *, streaming: bool = False) -> list[ImageSource]:
    """Raises:
    DataOptionError, EmptySourceError, OSError: see `told_apart` and `open_source`.
    """
    return [open_source(data, split=split, streaming=streaming) for data, split in told_apart(train, test)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--train", required=True, metavar="DATA[:SPLIT]", help="the labelled images to learn from")
    parser.add_argument("--test", required=True, metavar="DATA[:SPLIT]", help="the labelled images to be classified")
    parser.add_argument(
        "--features",
        type=Path,
        metavar="FOLDER",
        help="where features stay, to be used again; all processes must see it (default: a temporary one)",
    )
    parser.add_argument("--part_size", type=int, default=PART_SIZE, help="images between two saves (%(default)s)")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, and how it and its images are read and run."""
    parser.add_argument("model", metavar="MODEL", help="a model folder, the name of a model on the Hub, or timm:NAME")
    parser.add_argument("--streaming", action="store_true", help="read parquet files and Hub data sets as streams")
    parser.add_argument(
        "--workers", type=int, default=4, help="threads that read images, in each process (%(default)s)"
    )
    parser.add_argument("--device", help="where the model runs (default: an accelerator if there is one)")
    parser.add_argument("--revision", help="of a model on the Hub")
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that comes with the model")


def add_feature_arguments(parser: argparse.ArgumentParser) -> None:
    """Of commands that make features, and nothing but a result from them."""
    parser.add_argument("--n_last_blocks", type=int, help="features of so many last blocks, not the view feature")
    parser.add_argument("--batch_size", "--batch-size", type=int, default=64, help="images a process (%(default)s)")
    parser.add_argument(
        "--output", type=Path, help="a JSON file for the result; beside it, a table (.md) and a picture (.png)"
    )


def checked(parser: argparse.ArgumentParser) -> argparse.Namespace:
    arguments = parser.parse_args()
    for name in ("batch_size", "part_size", "workers"):
        if getattr(arguments, name, 1) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(arguments, name)}")
    return arguments


def checked_output(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> argparse.Namespace:
    """Refuses what cannot be written, and makes the folder, before anything is computed.

    Raises:
        OSError: the folder cannot be made.
    """
    if arguments.output is not None and arguments.output.is_dir():
        parser.error(f"--output {arguments.output} is a folder; name a file in it")
    if arguments.output is not None and arguments.output.suffix in (".md", ".png"):
        parser.error(f"--output {arguments.output} names the JSON file; table and picture are written beside it")
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(arguments.output.parent, os.W_OK):
            parser.error(f"--output {arguments.output}: {arguments.output.parent} cannot be written to")
    return arguments


@contextmanager
def features_folder(given: Path | None) -> Iterator[Path]:
    """The folder given, or one for all processes of this machine that is gone afterwards."""
    if given is not None:
        yield given
        return
    state = PartialState()
    with tempfile.TemporaryDirectory(prefix="features-") as own:
        [folder] = broadcast_object_list([own])
        yield Path(folder)
        state.wait_for_everyone()  # the main process deletes it


@contextmanager
def evaluation(arguments: argparse.Namespace) -> Iterator[tuple[FrozenModel, list[FeatureBank]]]:
    """The model and the features of its training and its test images."""
    state = open_device(arguments.device)
    sources = open_train_and_test(arguments.train, arguments.test, streaming=arguments.streaming)
    model = load_frozen(
        arguments.model,
        n_last_blocks=arguments.n_last_blocks,
        device=arguments.device or state.device,
        revision=arguments.revision,
        trust_remote_code=arguments.trust_remote_code,
    )
    options = {name: getattr(arguments, name) for name in ("batch_size", "part_size")}
    with features_folder(arguments.features) as folder:
        named = zip((arguments.train, arguments.test), sources, strict=True)
        yield (
            model,
            [
                make_bank(model, data, source, folder, num_threads=arguments.workers, **options)
                for data, source in named
            ],
        )
    state.destroy_process_group()


def describe(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was evaluated, for the result."""
    return {name: getattr(arguments, name) for name in ("model", "train", "test", "n_last_blocks")}


@dataclass(frozen=True)
class CardFigure:
    """A figure of a result for a model card, as `publish.py --metrics` takes it.

    Attributes:
        name: What was measured, such as "k-NN top-1, k = 20".
        value: A share in 0..1.
        metric: As the Hub names it: "accuracy", ...
        dataset, split: The data it was measured on, without folders of the machine.
        task: As the Hub names it, one of `card_template.TASKS`.
    """

    name: str
    value: float
    metric: str
    dataset: str
    split: str | None
    task: str = "image-classification"


def card_figures(
    values: Mapping[str, float], data: str, metric: str = "accuracy", task: str = "image-classification"
) -> list[CardFigure]:
    """Figures by their names, of DATA or DATA:SPLIT."""
    dataset, split = split_name(data)
    return [CardFigure(name, value, metric, public_name(dataset), split, task) for name, value in values.items()]


def knn_figures(result: Mapping[str, float], data: str) -> list[CardFigure]:
    """Returns the figures of k-NN accuracies, which are named `k20_top1` and so on."""
    named = [name.split("_top") for name in result if "_top" in name]
    return card_figures({f"k-NN top-{top}, k = {k[1:]}": result[f"{k}_top{top}"] for k, top in named}, data)


def write_result(
    result: dict[str, Any],
    title: str,
    table: str,
    output: Path | None,
    figures: Sequence[CardFigure] = (),
    draw: Callable[[dict[str, Any]], "Figure"] | None = None,
) -> None:
    """Prints the table; `output` gets the result, the same with `.md` at its end the table, and with `.png` what `draw`
    makes of the result. Main process alone.

    `figures` for a model card are the entry "figures" of the result, beside "command", the command that is running, in
    which MODEL stands for the result's "model".
    """
    if not PartialState().is_main_process:
        return
    print(table)
    if output is not None:
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


def run_command(command: Callable[[], object], errors: tuple[type[Exception], ...]) -> None:
    try:
        command()
    except errors as error:
        sys.exit(f"error: {error}")
