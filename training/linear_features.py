# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluates stored features by a linear classifier. It is fast, but not the published protocol.

Each image is seen once, without augmentation. The published protocol is in `linear_probe.py`.

    python training/linear_features.py MODEL --train photographs      # one folder: a fifth of each class is the test
    python training/linear_features.py MODEL --train imagenet:train --test imagenet:val --features features
    python training/linear_features.py MODEL --train ... --test ... --solver ridge --n_last_blocks 4
    python training/linear_features.py MODEL --train ... --test ... --shots 1% 10% 5 --seeds 0 1 2     # and k-NN

The penalty is the one of `--l2` that is best on a part of the training images, the share `--held_out` of them. The
final classifier is then trained on all of them. MODEL and DATA are as for `knn.py`; without `--test`, the share
`--test_share` of each class is the test. All training features must fit into memory.

`--shots` uses only that many images of each class, drawn once for each of `--seeds`, and gives mean and spread over the
seeds for the linear classifier and for k-NN. The penalty is chosen anew for each draw. Shots that are too few for that
are skipped, by name. `--against` puts other models beside it, and MODEL's own network with random weights.
"""

import argparse
import math
from dataclasses import fields, replace
from statistics import mean, stdev
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

from modeling_esvit.programs.packages import exit_without_package


with exit_without_package("pip install -e '.[training]'"):
    from accelerate import PartialState

from modeling_esvit.programs.parser import ProgramParser
from training.evaluation.arguments import (
    add_comparison_argument,
    add_data_arguments,
    add_feature_arguments,
    parse_and_check,
)
from training.evaluation.comparison import CHANCE, conclude, format_comparison
from training.evaluation.linear_fit import SOLVERS
from training.evaluation.opening import open_evaluation
from training.evaluation.results import (
    CardValue,
    describe_counts,
    describe_evaluation,
    find_test_data,
    format_table,
    make_card_values,
    write_result,
)
from training.evaluation.scores import find_tops
from training.evaluation.stored_features import FitOptions, evaluate_features
from training.features.frozen_models import UNTRAINED
from training.figures.accuracy import draw_stored_features
from training.options.command import parse_seed, run_command


L2 = [10.0**exponent for exponent in range(-8, 3)]


def parse_arguments() -> argparse.Namespace:
    parser = ProgramParser(
        __doc__, first="test test_share shots against output features solver l2 n_last_blocks device"
    )
    add_data_arguments(parser)
    add_feature_arguments(parser)
    add_comparison_argument(parser)
    parser.add_argument(
        "--solver", choices=SOLVERS, default="logistic", help="kind of classifier (default: %(default)s)"
    )
    parser.add_argument(
        "--l2", type=float, nargs="+", default=L2, help="penalties to choose from (default: 1e-8 .. 100)"
    )
    parser.add_argument(
        "--held_out",
        type=float,
        default=0.2,
        help="share of the training images that chooses l2 (default: %(default)s)",
    )
    parser.add_argument(
        "--shots", nargs="+", help="training images of each class, as shares such as 1%% or numbers such as 5"
    )
    parser.add_argument(
        "--seeds", type=parse_seed, nargs="+", default=[0, 1, 2], help="seeds of the draws (default: 0 1 2)"
    )
    arguments = parse_and_check(parser)
    if not all(0 < l2 < math.inf for l2 in arguments.l2) or not 0 < arguments.held_out < 1:
        given = f"{' '.join(map(str, arguments.l2))} and {arguments.held_out}"
        parser.error(f"each --l2 must be positive and finite, and --held_out between 0 and 1, got {given}.")
    return arguments


def format_spread(values: list[float]) -> str:
    """Formats mean and sample standard deviation in percent."""
    deviation = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2%}{deviation}"


def make_table(result: dict[str, Any]) -> str:
    lines, solver = [*describe_counts(result), ""], result["solver"]
    if "low_shot" not in result:
        tops = find_tops(result)
        row = [solver, f"{result['l2']:g}", *(f"{result[f'top{top}']:.2%}" for top in tops)]
        lines += format_table(["classifier of stored features", "l2", *(f"top-{top}" for top in tops)], [row])
    else:
        rows = [
            [row["shots"], str(row["images"]), format_spread(row[solver]), format_spread(row["knn"])]
            for row in result["low_shot"]
        ]
        lines += format_table(["of each class", "images", f"{solver}, top-1", "k-NN, top-1"], rows)
        lines += ["", f"Mean and standard deviation over the seeds {' '.join(map(str, result['seeds']))}."]
        lines += [f"Skipped: {shots} of each class. {reason}" for shots, reason in result["skipped"].items()]
    return "\n".join([*lines, "", *compare(result)])


def read_accuracies(result: dict[str, Any], of: dict[str, Any]) -> dict[str, float]:
    """Returns the linear top-1 accuracies of one model by the images that trained the classifier."""
    if "low_shot" not in result:
        return {"top-1": of["top1"]}
    return {f"top-1, {row['shots']} of each class": mean(row[result["solver"]]) for row in of["low_shot"]}


def compare(result: dict[str, Any]) -> list[str]:
    """Returns the lines that put the model beside others and chance; chance alone without others."""
    if not result["against"]:
        return [f"Chance, the most frequent class: {result['chance']:.2%}."]
    models = {result["model"]: result, **result["against"]}
    scores = {name: read_accuracies(result, of) for name, of in models.items()}
    scores[CHANCE] = dict.fromkeys(scores[result["model"]], result["chance"])
    last = list(scores[result["model"]])[-1]
    verdict = conclude(result["model"], {name: each[last] for name, each in scores.items()}, result["test_images"])
    return [*format_comparison(scores), "", f"By {last}, {verdict}"]


def name_values(result: dict[str, Any]) -> dict[str, float]:
    """Returns the values of a result that a model card shows, by name: of few shots, means over the seeds."""
    solver = f"linear ({result['solver']}, stored features)"
    values = {f"{solver} top-{k}": result[f"top{k}"] for k in find_tops(result)}
    for row in result.get("low_shot", []):
        few = f"{row['shots']} of each class, mean of {len(result['seeds'])} draws"
        values |= {f"{solver} top-1, {few}": mean(row[result["solver"]]), f"k-NN top-1, {few}": mean(row["knn"])}
    return values


def make_values(result: dict[str, Any]) -> list[CardValue]:
    """Makes the values of a model card, beside chance and what the untrained network gives, if that was measured."""
    untrained = result["against"].get(UNTRAINED)
    before = {} if untrained is None else name_values(untrained)
    return [
        replace(each, chance=None if "top-5" in each.name else result["chance"], before=before.get(each.name))
        for each in make_card_values(name_values(result), find_test_data(result))
    ]


def main() -> None:
    arguments = parse_arguments()
    with open_evaluation(arguments) as (model, banks, others):
        if PartialState().is_main_process:  # the others are needed for the features only
            options = FitOptions(**{field.name: getattr(arguments, field.name) for field in fields(FitOptions)})
            device = model.model.device
            bank, queries = banks
            result = describe_evaluation(arguments) | evaluate_features(options, bank, queries, device)
            result["against"] = {
                name: evaluate_features(options, train, test, device) for name, (train, test) in others.items()
            }
            title = f"Linear classifier of the stored features of {arguments.model}"
            write_result(result, title, make_table(result), arguments.output, make_values(result), draw_stored_features)


if __name__ == "__main__":
    run_command(main)
