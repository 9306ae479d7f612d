# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""How good are the view features of a model? The weighted k-nearest-neighbour classifier of DINO and EsViT.

    python training/knn.py MODEL --train photographs:train --test photographs:test --k 10 20 --output metrics.json
    torchrun --nproc_per_node 2 training/knn.py MODEL --train ... --test ...          # the same result, shared work

MODEL is a model folder or a name on the Hub, of this project or any other whose model has a `pooler_output`, or
`timm:` and the name of a model of timm. DATA is a folder with a subfolder a class, a folder or glob of parquet or tar
files, also by URL, a folder of `Dataset.save_to_disk` or the name of a data set on the Hub; `:split` names a split of a
data set ("train" if none is named), or a subfolder of a folder of images.

Nothing is trained: each test image is given to the class whose training images are nearest to it. With `--features
FOLDER` the features stay there, and the next evaluation of the same model and images begins with them.
"""

import argparse

from training.evaluation.command import (
    COMMON_ERRORS,
    add_arguments,
    add_feature_arguments,
    checked,
    checked_output,
    describe,
    evaluation,
    knn_figures,
    run_command,
    write_result,
)
from training.evaluation.knn import TEMPERATURE, NeighbourCountError, TemperatureError, evaluate_banks
from training.figures.accuracy import draw_knn


USER_ERRORS = (*COMMON_ERRORS, NeighbourCountError, TemperatureError)


def table(result: dict[str, float]) -> str:
    """In Markdown."""
    lines = ["{classes} classes, {train_images} training and {test_images} test images.".format(**result), ""]
    if result["unknown_class_images"]:
        lines[:1] += [
            "{unknown_class_images} test images are of no training class and count as wrong.".format(**result)
        ]
    lines += ["| k | top-1 | top-5 |", "| --- | --- | --- |"]
    for count in [name[1:].removesuffix("_top1") for name in result if name.endswith("_top1")]:
        lines.append(f"| {count} | {result[f'k{count}_top1']:.2%} | {result[f'k{count}_top5']:.2%} |")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_feature_arguments(parser)
    parser.add_argument(
        "--k", type=int, nargs="+", help="numbers of neighbours (default: of 10 20 100 200 those that fit)"
    )
    parser.add_argument("--temperature", type=float, default=TEMPERATURE, help="of the votes (default: %(default)s)")
    return checked_output(parser, checked(parser))


def evaluate_command() -> None:
    arguments = parse_arguments()
    with evaluation(arguments) as (model, banks):
        result = evaluate_banks(*banks, k=arguments.k, temperature=arguments.temperature, device=model.model.device)
        described = describe(arguments) | {"temperature": arguments.temperature}
        title = f"k-NN of {arguments.model}"
        write_result(
            described | result, title, table(result), arguments.output, knn_figures(result, arguments.test), draw_knn
        )


if __name__ == "__main__":
    run_command(evaluate_command, USER_ERRORS)
