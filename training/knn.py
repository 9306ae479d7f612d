# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluates the view features of a model by the weighted k-nearest-neighbour classifier of DINO and EsViT.

    python training/knn.py MODEL --train photographs         # one folder: a fifth of each class is held out to test
    python training/knn.py MODEL --train photographs:train --test photographs:test --k 10 20 --output metrics.json
    torchrun --nproc_per_node 2 training/knn.py MODEL --train ... --test ...          # shared work, the same result
    python training/knn.py runs/mine --train ... --test ... --against untrained timm:NAME org/name   # was it worth it?

MODEL is a model folder or a name on the Hub, of this project or of any other model with a `pooler_output`, or
`timm:NAME` for a model of timm. DATA is a folder with a subfolder for each class, a folder or glob of parquet or tar
files (URLs work, too), a folder of `Dataset.save_to_disk`, or the name of a data set on the Hub. `:SPLIT` names a split
of a data set (default: train), or a subfolder of a folder of images. Without `--test`, `--test_share` of each class of
`--train` is held out for testing: the same images for each model, in each call and on each machine.

Nothing is trained: each test image gets the class whose training images are nearest to it. `--features FOLDER` keeps
the features, so that the next evaluation of the same model and images need not compute them again. `--against` puts
other models beside it, and MODEL's own network with random weights.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

from modeling_esvit.programs.parser import ProgramParser
from training.evaluation.arguments import (
    add_comparison_argument,
    add_data_arguments,
    add_feature_arguments,
    parse_and_check,
)
from training.evaluation.comparison import CHANCE, conclude, format_comparison
from training.evaluation.knn import TEMPERATURE, check_temperature, evaluate_banks
from training.evaluation.opening import open_evaluation
from training.evaluation.results import (
    describe_counts,
    describe_evaluation,
    find_test_data,
    format_table,
    make_knn_values,
    write_result,
)
from training.evaluation.scores import find_tops
from training.features.frozen_models import UNTRAINED
from training.figures.accuracy import draw_knn
from training.options.command import run_command


def make_table(result: dict[str, Any]) -> str:
    counts = list_counts(result)
    if result["against"]:
        return "\n".join([*describe_counts(result), "", *compare(result, counts)])
    tops = find_tops(result)
    rows = [[count, *(f"{result[f'k{count}_top{top}']:.2%}" for top in tops)] for count in counts]
    rows.append(["chance: the most frequent class", f"{result['chance']:.2%}", ""][: 1 + len(tops)])
    return "\n".join([*describe_counts(result), "", *format_table(["k", *(f"top-{top}" for top in tops)], rows)])


def list_counts(result: Mapping[str, Any]) -> list[str]:
    """Returns the numbers of neighbours in a result."""
    return [name[1:].removesuffix("_top1") for name in result if name.endswith("_top1")]


def compare(result: dict[str, Any], counts: list[str]) -> list[str]:
    """Returns the lines that put the model beside others and chance, by top-1 for each number of neighbours."""
    models = {result["model"]: result, **result["against"]}
    scores = {
        name: {f"top-1, k = {count}": values[f"k{count}_top1"] for count in counts} for name, values in models.items()
    }
    scores[CHANCE] = dict.fromkeys(scores[result["model"]], result["chance"])
    first = f"top-1, k = {counts[0]}"
    alone = {name: values[first] for name, values in scores.items()}
    verdict = conclude(result["model"], alone, result["test_images"])
    return [*format_comparison(scores), "", f"By {first}, {verdict}"]


def parse_arguments() -> argparse.Namespace:
    parser = ProgramParser(
        __doc__, first="test test_share k against output features n_last_blocks batch_size workers device dtype"
    )
    add_data_arguments(parser)
    add_feature_arguments(parser)
    add_comparison_argument(parser)
    parser.add_argument(
        "--k",
        type=int,
        nargs="+",
        help="numbers of neighbours (default: those of 10 20 100 200 for which there are enough training images)",
    )
    parser.add_argument(
        "--temperature", type=float, default=TEMPERATURE, help="temperature of the votes (default: %(default)s)"
    )
    arguments = parse_and_check(parser)
    check_temperature(arguments.temperature)
    if arguments.k is not None and min(arguments.k) < 1:
        parser.error(f"--k must be numbers from 1 on, got {' '.join(map(str, arguments.k))}")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    with open_evaluation(arguments) as (model, banks, others):
        options: dict[str, Any] = {"k": arguments.k, "temperature": arguments.temperature}
        options["device"] = model.model.device
        result = evaluate_banks(*banks, **options)
        against = {name: evaluate_banks(*each, **options) for name, each in others.items()}
        described = describe_evaluation(arguments) | {"temperature": arguments.temperature}
        title = f"k-NN of {arguments.model}"
        write_result(
            described | result | {"against": against},
            title,
            make_table(described | result | {"against": against}),
            arguments.output,
            make_knn_values(result, find_test_data(described), against.get(UNTRAINED)),
            draw_knn,
        )


if __name__ == "__main__":
    run_command(main)
