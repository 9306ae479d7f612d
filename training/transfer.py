# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluates how well the features of a model transfer to other data sets, as in the transfer table of the paper.

A linear classifier on frozen features is scored on each of 18 data sets. The result is the average of their metrics
and, against a second model, the number of wins.

    python training/transfer.py MODEL --output results/mine.json
    python training/transfer.py MODEL --output results/mine.json --datasets cifar10 dtd voc2007
    python training/transfer.py MODEL --output results/mine.json --against timm:swin_tiny_patch4_window7_224.ms_in1k
    python training/transfer.py MODEL --output results/mine.json --against results/other.json
    python training/transfer.py MODEL --output results/own.json --data birds=my/birds --data signs=my/signs:train:val
    python training/transfer.py MODEL --output results/own.json --table my_data_sets.yaml

MODEL is as for `knn.py`. The data sets come from `evaluation/transfer_datasets.yaml` or from your own table of the same
form (`--table`), which can name validation splits, columns, and labels with several classes for an image. `--data` adds
a data set NAME=DATA[:TRAIN[:TEST]], where DATA is as for `knn.py`, and the splits are "train" and "test" by default.

The penalty of each classifier is chosen automatically, on the validation split or a fifth of the training images; then
the classifier is trained on both together. `evaluation/transfer_search.py` describes the search. Features are kept
beside the result or in `--features`, and each data set is added to the result when it is done, so the same command
continues a stopped evaluation. Several processes (`torchrun`, `accelerate launch`) share the images.

If a data set is missing, gated or cannot be used, the result gives the reason, and the exit code is 3 (under `torchrun`
and `accelerate launch` it is 1, which they use for all errors).
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

from modeling_esvit.images.devices import open_device
from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.paths import parse_name, parse_path
from modeling_esvit.storage.url_secrets import hide_secrets
from training.evaluation.arguments import (
    add_bank_arguments,
    add_column_arguments,
    add_feature_arguments,
    add_reading_arguments,
    choose_columns,
    parse_and_check,
)
from training.evaluation.results import CardValue, format_table, make_card_values, write_result
from training.evaluation.transfer_metrics import METRICS
from training.evaluation.transfer_results import MEASURED, Outcome, compare, read_result, read_scores, summarise
from training.evaluation.transfer_run import Transfer
from training.evaluation.transfer_sets import TABLE, TransferSet, TransferTableError, read_table
from training.figures.transfer import draw
from training.options.command import parse_seed, run_command
from training.options.provenance import find_provenance


INCOMPLETE = 3  # exit code: not all data sets were measured


def parse_arguments() -> argparse.Namespace:
    parser = ProgramParser(__doc__, first="output datasets data against metric features batch_size workers")
    add_reading_arguments(parser)
    add_feature_arguments(parser)
    parser.add_argument(
        "--table", type=parse_path, default=TABLE, help="YAML file of data sets (default: those of the paper)"
    )
    parser.add_argument(
        "--datasets", nargs="+", help="names in the table (default: all of them, or none if there is --data)"
    )
    parser.add_argument(
        "--data",
        type=hide_secrets,
        action="append",
        default=[],
        metavar="NAME=DATA[:TRAIN[:TEST]]",
        help="adds a data set",
    )
    parser.add_argument(
        "--metric", choices=METRICS, default="accuracy", help="metric of each --data (default: %(default)s)"
    )
    parser.add_argument(
        "--against", type=parse_name, metavar="MODEL|JSON", help="a second model to compare with, or a result of one"
    )
    parser.add_argument(
        "--features",
        type=parse_path,
        metavar="FOLDER",
        help="keep features in this folder (default: beside the result)",
    )
    add_column_arguments(parser)
    add_bank_arguments(parser)
    parser.add_argument(
        "--seed", type=parse_seed, default=0, help="seed that draws the held-out images (default: %(default)s)"
    )
    arguments = parse_and_check(parser)
    if arguments.output is None:
        parser.error("--output is needed. Name a JSON file for the result.")
    arguments.features = arguments.features or arguments.output.parent / "features"
    return arguments


def choose_sets(options: argparse.Namespace) -> list[TransferSet]:
    """Returns the data sets that the options name.

    Raises:
        TransferTableError: the table, or a name in the options, cannot be used.
    """
    own = [parse_own_set(given, options) for given in options.data]
    if not own and any(choose_columns(options).values()):
        raise TransferTableError("--label_column, --image_column and --config_name are about --data; give some.")
    table = read_table(options.table)
    names = options.datasets or ([] if own else list(table))
    unknown = [name for name in names if name not in table]
    if unknown:
        raise TransferTableError(f"--datasets {' '.join(unknown)}: no such data set. The table has {', '.join(table)}.")
    chosen = [table[name] for name in dict.fromkeys(names)] + own
    if len({each.name for each in chosen}) < len(chosen):
        raise TransferTableError("two data sets have the same name. Give --data another name.")
    return chosen


def parse_own_set(given: str, options: argparse.Namespace) -> TransferSet:
    """Makes a data set from `given`, which is NAME=DATA[:TRAIN[:TEST]], and the options about such data.

    Raises:
        TransferTableError: `given` does not have that form.
    """
    name, equals, data = given.partition("=")
    if not (name and equals and data):
        raise TransferTableError(f"--data {given!r}: write NAME=DATA, such as birds=my/birds.")
    head, splits = data, list[str]()
    while ":" in head and len(splits) < 2 and not Path(head).exists() and "/" not in head.rpartition(":")[2]:
        head, _, split = head.rpartition(":")
        splits.insert(0, split)
    train, test = [*splits, *("train", "test")[len(splits) :]]
    columns = {"label": options.label_column, "image": options.image_column, "config": options.config_name}
    return TransferSet(name, f"{head}:{train}", f"{head}:{test}", metric=options.metric, **columns)


# -- the result --------------------------------------------------------------------------------------------------------


def make_figures(result: dict[str, Any]) -> list[CardValue]:
    """Makes the figures of a model card, with the score of each data set."""
    outcomes = {name: found for name, found in result["datasets"].items() if found["status"] == MEASURED}
    return [
        figure
        for name, found in outcomes.items()
        for figure in make_card_values(
            {f"transfer to {name} ({found['metric']})": found["score"]},
            find_provenance(found["test"]),
            found["metric"],
        )
    ]


def format_percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def make_table(result: dict[str, Any]) -> str:
    """Makes a table of scores in percent, in bold if the model wins."""
    other = result.get("against")
    theirs = read_scores(other["datasets"]) if other else {}
    header = ["data set", "metric", "score", *(["against"] if other else []), "l2", "train", "test", "notes"]
    rows = []
    for name, found in result["datasets"].items():
        score, *notes = describe_score(found, theirs.get(name))
        rival = [format_percent(theirs.get(name))] if other else []
        rows.append([name, found["metric"], score, *rival, *notes])
    return "\n".join([*format_table(header, rows), "", *conclude(result)])


def describe_score(found: Outcome, rival: float | None) -> list[str]:
    """Returns the cells of a data set: score, l2, training images, test images and notes."""
    if found["status"] != MEASURED:
        return [found["status"], "", "", "", found["reason"]]
    bold = "**" if rival is not None and found["score"] > rival else ""
    counts = [f"{found['l2']:.1e}", f"{found['train_images']:,}", f"{found['test_images']:,}"]
    return [f"{bold}{format_percent(found['score'])}{bold}", *counts, "; ".join(found["notes"])]


def conclude(result: dict[str, Any]) -> list[str]:
    """Returns the lines below the table: the averages, and the wins against a second model."""
    lines = [f"Average of {result['data']}: {format_percent(result['average']) or 'none'}."]
    other = result.get("against")
    if other:
        averages = [format_percent(other[name]) for name in ("average_of_model", "average")]
        lines.append(
            f"Against {other['model']}: {other['wins']} wins and {other['ties']} ties in {other['compared']} data "
            f"sets; averages over these: {' and '.join(averages) if other['compared'] else 'none'}."
        )
    return lines


# -- the command -------------------------------------------------------------------------------------------------------


def replace_model(options: argparse.Namespace) -> argparse.Namespace:
    """Returns the options with the model of `--against`."""
    return argparse.Namespace(**vars(options) | {"model": options.against, "revision": None})


def main() -> None:
    options = parse_arguments()
    state = open_device(options.device)
    sets = choose_sets(options)
    against, rivals = options.against, dict[str, Outcome]()
    transfers = [Transfer(options, options.output)]
    if against and Path(against).suffix == ".json":
        against, rivals = read_result(Path(against)).values()
    elif against:
        transfers.append(Transfer(replace_model(options), options.output.with_suffix(".against.json")))
    for transfer in transfers:
        transfer.make_features(sets)
    if not state.is_main_process:
        return
    results, *others = [transfer.fit_all(sets) for transfer in transfers]
    result = summarise(options, results)
    if against:
        result["against"] = compare(results, against, *(others or [rivals]))
    write_result(result, f"Transfer of {options.model}", make_table(result), options.output, make_figures(result), draw)
    state.destroy_process_group()
    if result["measured"] < result["asked_for"]:
        sys.exit(INCOMPLETE)


if __name__ == "__main__":
    run_command(main)
