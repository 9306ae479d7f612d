# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""A linear classifier of stored features: no augmentation, each image is seen once. Fast, and not the published
protocol, which is `linear_probe.py`.

    python training/linear_features.py MODEL --train imagenet:train --test imagenet:val --features features
    python training/linear_features.py MODEL --train ... --test ... --solver ridge --n_last_blocks 4
    python training/linear_features.py MODEL --train ... --test ... --shots 1% 10% 5 --seeds 0 1 2     # and k-NN

The weight of the penalty is the one of `--l2` that is best on a part of the training images, which is held out; then
all of them are used. MODEL and DATA are as for `knn.py`. All training features are in memory.

With `--shots` only so many images of each class are used, drawn by `--seeds`: mean and spread over the seeds, for the
linear classifier and for k-NN. The l2 is chosen anew for each draw.
"""

import argparse
import math
from collections.abc import Iterator
from statistics import mean, stdev
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from training.evaluation.command import (
    COMMON_ERRORS,
    NO_CLASS,
    TOP_K,
    CardFigure,
    add_arguments,
    add_feature_arguments,
    align_labels,
    card_figures,
    checked,
    checked_output,
    describe,
    evaluation,
    run_command,
    top_k_accuracy,
    write_result,
)
from training.evaluation.linear_fit import SOLVERS, HeldOutError, chosen_l2, draw_shots
from training.features.bank import FeatureBank
from training.figures.accuracy import draw_stored_features
from training.knn import TEMPERATURE, knn_predict


L2 = [10.0**exponent for exponent in range(-8, 3)]
KNN_K = 20  # neighbours of the low-shot k-NN, or as many as there are images

USER_ERRORS = (*COMMON_ERRORS, HeldOutError)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_feature_arguments(parser)
    parser.add_argument("--solver", choices=SOLVERS, default="logistic", help="(default: %(default)s, by L-BFGS)")
    parser.add_argument(
        "--l2", type=float, nargs="+", default=L2, help="penalties to choose from (default: 1e-8 .. 100)"
    )
    parser.add_argument("--held_out", type=float, default=0.2, help="share that chooses l2 (default: %(default)s)")
    parser.add_argument("--shots", nargs="+", help="of each class: shares such as 1%%, or numbers of images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the draws (default: 0 1 2)")
    arguments = checked_output(parser, checked(parser))
    if not all(0 < l2 < math.inf for l2 in arguments.l2) or not 0 < arguments.held_out < 1:
        parser.error("--l2 must be positive and finite, and --held_out between 0 and 1")
    return arguments


def train_and_score(
    options: argparse.Namespace, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int, seed: int
) -> dict[str, Any]:
    """Accuracies of the classifier of `train` on `test`, features and labels each, and the l2 that was chosen."""
    fit = SOLVERS[options.solver]
    l2, scores = options.l2[0], dict[float, float]()
    if len(options.l2) > 1:
        l2, scores = chosen_l2(fit, *train, classes, options.l2, options.held_out, seed)
    [linear] = fit(*train, classes, [l2])
    held_out = {f"{penalty:g}": score for penalty, score in scores.items()}
    return top_k_accuracy(linear.ranking(test[0]), test[1]) | {"l2": l2, "held_out_top1": held_out}


def nearest_neighbours(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int) -> dict[str, float]:
    k = min(KNN_K, len(train[1]))
    rankings = knn_predict(*train, test[0], k=[k], num_classes=classes, temperature=TEMPERATURE, device=train[0].device)
    return top_k_accuracy(rankings[k], test[1])


def low_shot(
    options: argparse.Namespace, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: int
) -> Iterator[dict[str, Any]]:
    """For each of `shots`: the number of images, and top-1 of both classifiers for each seed."""
    for shots in options.shots:
        draws = [draw_shots(train[1].cpu(), shots, seed) for seed in options.seeds]
        parts = [(train[0][rows.to(train[0].device)], train[1][rows.to(train[1].device)]) for rows in draws]
        linear = [
            train_and_score(options, part, test, classes, seed) for part, seed in zip(parts, options.seeds, strict=True)
        ]
        neighbours = [nearest_neighbours(part, test, classes) for part in parts]
        yield {
            "shots": shots,
            "images": len(draws[0]),
            options.solver: [scores["top1"] for scores in linear],
            "l2": [scores["l2"] for scores in linear],
            "knn": [scores["top1"] for scores in neighbours],
        }


def evaluate_features(
    options: argparse.Namespace, bank: FeatureBank, queries: FeatureBank, device: torch.device
) -> dict[str, Any]:
    labels, test_labels, classes = align_labels(bank.labels, queries.labels, bank.class_names, queries.class_names)
    where = device if device.type == "cuda" else torch.device("cpu")  # float64, which not every device has
    train = bank.features().to(where), labels.to(where)
    test = queries.features(), test_labels
    result = {
        "solver": options.solver,
        "train_images": len(labels),
        "test_images": len(test_labels),
        "classes": classes,
        "unknown_class_images": int((test_labels == NO_CLASS).sum()),
    }
    if options.shots:
        return result | {"seeds": options.seeds, "low_shot": list(low_shot(options, train, test, classes))}
    return result | train_and_score(options, train, test, classes, options.seeds[0])


def spread(values: list[float]) -> str:
    """Mean and sample standard deviation, in percent."""
    deviation = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{mean(values):.2%}{deviation}"


def table(result: dict[str, Any]) -> str:
    """In Markdown."""
    lines = ["{classes} classes, {train_images} training and {test_images} test images.".format(**result)]
    if result["unknown_class_images"]:
        lines.append("{unknown_class_images} test images are of no training class and count as wrong.".format(**result))
    solver = result["solver"]
    if "low_shot" in result:
        lines += ["", f"| of each class | images | {solver}, top-1 | k-NN, top-1 |", "| --- | --- | --- | --- |"]
        for row in result["low_shot"]:
            lines.append(f"| {row['shots']} | {row['images']} | {spread(row[solver])} | {spread(row['knn'])} |")
        lines += ["", f"Mean and standard deviation over the seeds {' '.join(map(str, result['seeds']))}."]
    else:
        lines += ["", "| classifier of stored features | l2 | top-1 | top-5 |", "| --- | --- | --- | --- |"]
        lines.append(f"| {solver} | {result['l2']:g} | {result['top1']:.2%} | {result['top5']:.2%} |")
    return "\n".join(lines)


def figures(result: dict[str, Any]) -> list[CardFigure]:
    """For a model card: of low-shot the means over the seeds."""
    solver = f"linear ({result['solver']}, stored features)"
    values = {f"{solver} top-{k}": result[f"top{k}"] for k in TOP_K if f"top{k}" in result}
    for row in result.get("low_shot", []):
        few = f"{row['shots']} of each class, mean of {len(result['seeds'])} draws"
        values |= {f"{solver} top-1, {few}": mean(row[result["solver"]]), f"k-NN top-1, {few}": mean(row["knn"])}
    return card_figures(values, result["test"])


def features_command() -> None:
    arguments = parse_arguments()
    with evaluation(arguments) as (model, banks):
        if PartialState().is_main_process:  # others helped with the features
            bank, queries = banks
            result = describe(arguments) | evaluate_features(arguments, bank, queries, model.model.device)
            title = f"Linear classifier of the stored features of {arguments.model}"
            write_result(result, title, table(result), arguments.output, figures(result), draw_stored_features)


if __name__ == "__main__":
    run_command(features_command, USER_ERRORS)
