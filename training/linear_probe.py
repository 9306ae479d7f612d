# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Evaluates the features of a model by the linear classifier of DINO and EsViT, with the published protocol.

    python training/linear_probe.py MODEL --train photographs --output probe    # a fifth of each class is the test
    python training/linear_probe.py MODEL --train imagenet:train --test imagenet:val --output probe
    torchrun --nproc_per_node 4 training/linear_probe.py MODEL ... --recipe swin_small
    python training/linear_probe.py MODEL ... --lr 0.0003 0.001 0.003 --n_last_blocks 1 4

The model is frozen. SGD trains one linear layer on it, with images that are cropped and flipped anew in each epoch.
One pass over the images trains a classifier for each learning rate and number of blocks. MODEL and DATA are as for
`knn.py`.
The same command continues a stopped run after its last whole epoch. OUTPUT/result.json holds the accuracies,
result.md a table and result.png a picture of them.

`--against` trains classifiers of other models beside it, below OUTPUT/against; "untrained" is MODEL's own network
with random weights. Without `--batch_size`, steps are small enough for ten an epoch.

`best` is the epoch with the highest accuracy on the test images, as in published figures. `last` is the last epoch,
which is not chosen by the test images.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

from modeling_esvit.programs.packages import exit_without_package


with exit_without_package("pip install -e '.[training]'"):
    from accelerate import PartialState

from modeling_esvit.images.decoding_arguments import read_decoding_arguments
from modeling_esvit.images.devices import open_device
from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.paths import parse_path
from training.data.left_out import repeat_left_out
from training.data.named_data import open_train_and_test
from training.data.sources import ImageSource
from training.evaluation.arguments import (
    add_comparison_argument,
    add_data_arguments,
    choose_columns,
    parse_and_check,
)
from training.evaluation.comparison import CHANCE, conclude, format_comparison
from training.evaluation.opening import load_other, open_features_folder
from training.evaluation.probe_run import (
    BATCH_SIZE,
    BLOCKS,
    IN_RECIPES,
    VIEW,
    ProbeRun,
    check_probe_options,
    fit_batch_size,
)
from training.evaluation.results import (
    CardValue,
    describe_unknown,
    find_test_data,
    format_table,
    make_card_values,
    write_result,
)
from training.evaluation.scores import find_tops
from training.features.bank import make_bank
from training.features.frozen_models import UNTRAINED, FrozenModel, make_file_name
from training.features.model_arguments import count_named_blocks, load_named_model
from training.figures.accuracy import draw_probe
from training.options.command import parse_seed, run_command
from training.options.errors import OptionError
from training.options.recipes import load_recipe, spell


RECIPES = Path(__file__).parent / "evaluation" / "probe_recipes"


def make_recipe_parser() -> argparse.ArgumentParser:
    """Makes the parser of those options that a recipe may set: IN_RECIPES."""
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument
    add("--lr", type=float, nargs="+", help="learning rates for a batch of 256 images (default: 0.001)")
    add(
        "--n_last_blocks",
        type=int,
        nargs="+",
        help=f"numbers of last blocks; 0 is the view feature (default: {BLOCKS}, or 0 for a model with fewer)",
    )
    add("--epochs", type=int, help="epochs of training (default: 100)")
    add("--batch_size", type=int, help="images in a step of all processes (default: 1024, fewer for few images)")
    add("--seed", type=parse_seed, help="seed of weights, order and crops (default: 0)")
    parser.set_defaults(lr=[0.001], n_last_blocks=None, epochs=100, batch_size=None, seed=0)
    return parser


def parse_arguments() -> argparse.Namespace:
    """Reads the defaults, then `--recipe`, then the rest of the command line."""
    recipe_parser = make_recipe_parser()
    parser = ProgramParser(
        __doc__, first="test test_share recipe epochs lr n_last_blocks batch_size against", parents=[recipe_parser]
    )
    add_data_arguments(parser)
    add_comparison_argument(parser)
    parser.add_argument(
        "--output", type=parse_path, required=True, help="folder for the result, and for the state of a stopped run"
    )
    parser.add_argument(
        "--recipe", help=f"YAML file with {', '.join(IN_RECIPES)}, or the name of one in evaluation/probe_recipes/"
    )
    parser.add_argument("--num_classes", type=int, help="number of classes, if the classes have no names")
    known, _ = parser.parse_known_args()
    if known.recipe:
        parser.set_defaults(**vars(recipe_parser.parse_args(read_recipe(known.recipe))))
    return parse_and_check(parser, writes_file=False)


def read_recipe(recipe: str) -> list[str]:
    """Reads a recipe, by its path or by its name in `probe_recipes/`, as command-line arguments.

    Raises:
        OptionError: see `load_recipe`; or it has other names than those of IN_RECIPES.
    """
    values = load_recipe(recipe, RECIPES)
    if unknown := [str(name) for name in values if name not in IN_RECIPES]:
        raise OptionError(
            f"The recipe {recipe!r} has {', '.join(unknown)}; a recipe of a probe has {', '.join(IN_RECIPES)}."
        )
    return [word for name, value in values.items() for word in spell(name, value)]


def make_table(result: dict[str, Any]) -> str:
    about = (
        f"{result['classes']} classes, {result['test_images']} test images, {result['epochs']} epochs with "
        f"steps of {result['batch_size']} images."
    )
    if result["unknown_class_images"]:
        about += f" {describe_unknown(result['unknown_class_images'])}."
    tops = [f"top-{top}" for top in find_tops(next(iter(result["classifiers"].values()))["best"])]
    header = ["blocks, lr", *prefix_first("best", tops), "epoch", *prefix_first("last", tops)]
    rows = [make_row(name, scores, name == result["best"]) for name, scores in result["classifiers"].items()]
    return "\n".join([about, "", *format_table(header, rows), "", *compare(result)])


def prefix_first(word: str, names: list[str]) -> list[str]:
    """Returns the names, the first of them after a word."""
    return [f"{word} {names[0]}", *names[1:]]


def compare(result: dict[str, Any]) -> list[str]:
    """Returns the lines that put the best classifier beside those of other models, and chance: by the last epoch, since
    best epochs are chosen by the test images.
    """
    models = {result["model"]: result, **result["against"]}
    scores = {name: {"last top-1": of["classifiers"][of["best"]]["last"]["top1"]} for name, of in models.items()}
    scores[CHANCE] = {"last top-1": result["chance"]}
    alone = {name: values["last top-1"] for name, values in scores.items()}
    return [*format_comparison(scores), "", conclude(result["model"], alone, result["test_images"])]


def make_row(name: str, scores: dict[str, Any], is_best: bool) -> list[str]:
    best, last = scores["best"], scores["last"]
    at_best, at_last = ([f"{of[f'top{top}']:.2%}" for top in find_tops(of)] for of in (best, last))
    return [f"**{name}**" if is_best else name, *at_best, str(best["epoch"]), *at_last]


def read_best(result: dict[str, Any]) -> dict[tuple[str, int], float]:
    """Returns the accuracies of the best classifier, in its best epoch and its last: (epoch, k) -> top-k."""
    scores = result["classifiers"][result["best"]]
    return {(epoch, k): scores[epoch][f"top{k}"] for epoch in ("best", "last") for k in find_tops(scores[epoch])}


def make_values(result: dict[str, Any]) -> list[CardValue]:
    """Makes the values of a model card for the best classifier: of its best epoch, as published, and its last; beside
    chance and what the untrained network gives, if that was measured.
    """
    named = {"best": f"linear top-{{}} ({result['best']}, best epoch)", "last": "linear top-{} (the same, last epoch)"}
    untrained = result["against"].get(UNTRAINED)
    before = {} if untrained is None else read_best(untrained)
    values, data = read_best(result), find_test_data(result)
    cards = make_card_values({named[epoch].format(k): value for (epoch, k), value in values.items()}, data)
    return [
        replace(card, chance=result["chance"] if k == 1 else None, before=before.get((epoch, k)))
        for card, (epoch, k) in zip(cards, values, strict=True)
    ]


def choose_blocks(options: argparse.Namespace) -> int:
    """Returns how many last blocks of the model are probed if nobody says so; VIEW, with a line, if it has too few."""
    if count_named_blocks(options) >= BLOCKS:
        return BLOCKS
    PartialState().print(
        f"Probes the view feature: {options.model} has no features of {BLOCKS} blocks; --n_last_blocks takes others."
    )
    return VIEW


def choose_options(options: argparse.Namespace, name: str) -> argparse.Namespace:
    """Returns the options of the probe of one model. One to compare with has a folder of its own, and its view feature:
    only the same network, untrained, has the same blocks.
    """
    if name == options.model:
        return options
    folder = options.output / "against" / make_file_name(name)
    blocks = options.n_last_blocks if name == UNTRAINED else [VIEW]
    return argparse.Namespace(**vars(options) | {"model": name, "output": folder, "n_last_blocks": blocks})


def train_probes(
    options: argparse.Namespace, model: FrozenModel, train: ImageSource, test: ImageSource, folder: Path
) -> ProbeRun:
    """Trains the classifiers of one model, or continues them; returns them. Features lie in `folder`."""
    process = PartialState()
    share = options.batch_size // process.num_processes  # as in training, so that one compiled model serves both
    reading = {"num_threads": options.workers, "part_size": options.part_size, "batch_size": share}
    probe = ProbeRun(options, model, train, make_bank(model, options.test or options.train, test, folder, **reading))
    probe.run()
    return probe


def main() -> None:
    options = parse_arguments()
    process = open_device(options.device)
    if options.n_last_blocks is None:
        options.n_last_blocks = [choose_blocks(options)]
    check_probe_options(options, process.num_processes)
    reading = {"streaming": options.streaming, "decoding": read_decoding_arguments(options)}
    reading["test_share"] = options.test_share
    train, test = open_train_and_test(options.train, options.test, **reading, **choose_columns(options))
    if options.batch_size is None:
        images = len(train)
        options.batch_size = fit_batch_size(images, process.num_processes)
        process.print(
            f"Steps of {options.batch_size} images: {BATCH_SIZE}, or a tenth of the {images} training images where "
            "that is less; --batch_size takes another number."
        )
    n_last_blocks = max(options.n_last_blocks) or None
    models = {options.model: load_named_model(options, n_last_blocks)}
    models |= {name: load_other(options, name, n_last_blocks) for name in options.against}
    with open_features_folder(options.features) as folder:
        probe, *more = [
            train_probes(choose_options(options, name), model, train, test, folder) for name, model in models.items()
        ]
        result, *others = [each.summarise() for each in (probe, *more)]
        unreadable = probe.bank.collect_unreadable(len(test))
    result["against"] = dict(zip(options.against, others, strict=True))
    output = options.output / "result.json"
    write_result(
        result, f"Linear probe of {options.model}", make_table(result), output, make_values(result), draw_probe
    )
    repeat_left_out(options.train, train, probe.skipped)
    repeat_left_out(options.test or options.train, test, unreadable)
    process.destroy_process_group()


if __name__ == "__main__":
    run_command(main)
