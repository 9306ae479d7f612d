# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares the view task with view + region, whose regions are matched in three ways, and with the untrained model.

The paper claims that the region task restores the correspondences that the view task loses (arXiv 2106.09785, section
4.3). Here all train for the same number of steps, from the same weights with each seed.

    python examples/compare_tasks.py comparison
    python examples/compare_tasks.py patches --data photographs --seeds 0 1 2

The program makes collages of the bundled photographs (`collages.py`), or patches of them (`photographs.py`). It
pretrains a small EsViT by the recipe `demo_collages`, and measures each model by k-NN and the measures of
`training/correspondence.py`. `results.md` gets mean and standard deviation over the seeds and what they show,
`results.json` everything, `results.png` and `matches.png` pictures. A repeated command skips finished parts and
continues a stopped run. compare_tasks.md reports the results, and what else was tried. Further options go to
pretrain.py, for example `--region_weight 0.8`; give another folder then.

Declared before the runs: the claim is shown if with every seed the view task is below the untrained model in the
paper's measure ("mirrored"), and view + region by location is above the view task in "mirrored", "recoloured" and k-NN,
and if each mean difference is larger than the standard deviations of both models over the seeds. Matches by feature, as
published, stand beside it as they come.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import numpy as np
import torch
from transformers.utils import logging as transformers_logging

from modeling_esvit.programs.packages import exit_without_package


with exit_without_package("pip install -e '.[training,examples,demo]'"):
    import datasets
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

from examples.collages import write_collages
from examples.demo import draw_models, keep_settings, pretrain
from examples.photographs import write_photographs
from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.atomic import write_text
from modeling_esvit.storage.paths import parse_path
from training.data.sources import open_source
from training.evaluation.knn import TEMPERATURE, evaluate_banks
from training.evaluation.result_files import read_result_file, write_result_file
from training.evaluation.results import format_table
from training.evaluation.stored_features import FitOptions, evaluate_features
from training.features.bank import make_bank
from training.features.frozen_models import load_frozen
from training.matching.evaluation import measure_source
from training.matching.over_images import Measured
from training.matching.pairs import PAIRS
from training.options.command import parse_seed, run_command
from training.state.figure_files import save_figure


RECIPE = "demo_collages"
TRAIN, TEST = 1024, 400  # images
PICTURED = 4  # of them, with the matches of each model
SIDE = 56  # pixels of the views: 7 x 7 regions
K = 20
UNTRAINED, VIEW, FEATURE, LOCATION, SWITCH = "untrained", "view", "by feature", "by location", "location, then feature"
ARMS = {  # the options of each run
    VIEW: ["--task", "view", "--region_matching", "feature"],
    FEATURE: ["--region_matching", "feature"],
    LOCATION: ["--region_matching", "location"],
    SWITCH: ["--region_matching", "location_then_feature"],
}
Results = dict[str, list[dict[str, Any]]]  # kind of model -> the scores of each seed
COLOURS = {
    **{UNTRAINED: "silver", VIEW: "orange", FEATURE: "deepskyblue"},
    **{LOCATION: "mediumpurple", SWITCH: "mediumseagreen"},
}
MEASURES = {
    "k-NN": ("knn", f"k{K}_top1"),
    "mirrored": ("mirrored", "accuracy"),
    "crops": ("crops", "exact"),
    "recoloured": ("recoloured", "exact"),
    "different regions": ("mirrored", "distinct"),
}
ONE_SEED = "one seed shows nothing either way; give several, as --seeds 0 1 2"
CLAIMS = [  # (higher, lower, measures)
    (UNTRAINED, VIEW, ["mirrored"]),
    (LOCATION, VIEW, ["mirrored", "recoloured", "k-NN"]),
]


def measure(folder: Path, data: Path, side: int = SIDE, linear: FitOptions | None = None) -> dict[str, Any]:
    """Measures a model, or reads the scores that an earlier call left beside its folder.

    Views have `side` pixels. With `linear`, also a linear classifier of the features.
    """
    file = folder.with_name(f"{folder.name}-scores.json")
    if file.exists():
        return read_result_file(file)
    model, features = load_frozen(str(folder)), folder.with_name(f"{folder.name}-features")
    sources = {split: open_source(str(data), split=split) for split in ("train", "test")}
    train, test = (make_bank(model, split, source, features) for split, source in sources.items())
    for bank, source in zip((train, test), sources.values(), strict=True):
        bank.collect_unreadable(len(source)).warn()
    cpu = torch.device("cpu")
    scores: dict[str, Any] = {"knn": evaluate_banks(train, test, k=[K], temperature=TEMPERATURE, device=cpu)}
    if linear is not None:
        scores["linear"] = evaluate_features(linear, train, test, cpu)
    measured = Measured(PAIRS, side, seed=0, batch_size=32)
    correspondence, found = measure_source(model, sources["test"], measured, features / "correspondence", threads=2)
    scores |= correspondence
    write_result_file(file, scores)
    found.parts.delete()
    return scores


def read_values(scores: list[dict[str, Any]], title: str) -> list[float]:
    """Reads the value of each seed."""
    measure, name = MEASURES[title]
    return [each[measure][name] for each in scores]


def read_chance(results: Results, title: str) -> float:
    measure, name = MEASURES[title]
    [scores, *_] = results[UNTRAINED]
    if name == "distinct":  # of T draws from T regions
        return 1 - (1 - 1 / math.prod(scores["grid"])) ** math.prod(scores["grid"])
    return 1 / scores["knn"]["classes"] if measure == "knn" else scores[measure][f"chance_{name}"]


def format_spread(values: list[float]) -> str:
    """Formats mean and sample standard deviation, in percent."""
    return f"{100 * mean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


def make_table(results: Results) -> str:
    rows = [["at random", *(f"{100 * read_chance(results, title):.1f}" for title in MEASURES)]]
    for name, scores in results.items():
        rows.append([name, *(format_spread(read_values(scores, title)) for title in MEASURES)])
    return "\n".join(format_table(["%", *MEASURES], rows))


def find_verdict(above: list[float], below: list[float]) -> str:
    """Says what the values of each seed show: a difference with every seed, and beyond the spread over them, or not."""
    gains = [one - other for one, other in zip(above, below, strict=True)]
    if len(gains) == 1:
        return ONE_SEED
    return "shown" if min(gains) > 0 and mean(gains) > max(stdev(above), stdev(below)) else "not shown"


def judge(results: Results) -> list[str]:
    """Returns a line for each part of the claim, see `find_verdict`."""
    lines = []
    for higher, lower, titles in CLAIMS:
        if higher not in results or lower not in results:
            continue
        for title in titles:
            above, below = (read_values(results[name], title) for name in (higher, lower))
            points = ", ".join(f"{100 * (one - other):+.1f}" for one, other in zip(above, below, strict=True))
            verdict = find_verdict(above, below)
            lines.append(f"* {title}: {higher} above {lower}: {verdict} ({points} points with each seed)")
    return lines


def draw_results(results: Results) -> Figure:
    """Draws a panel for each measure: a bar for each model's mean, a dot for each seed, a line for chance."""
    figure = Figure(figsize=(2.3 * len(MEASURES), 3.6), layout="constrained")
    for axes, title in zip(figure.subplots(1, len(MEASURES)), MEASURES, strict=True):
        for place, (name, scores) in enumerate(results.items()):
            values = read_values(scores, title)
            axes.bar(place, mean(values), color=COLOURS[name], width=0.7)
            axes.scatter(np.full(len(values), place), values, s=14, color="black", zorder=2)
        axes.axhline(read_chance(results, title), color="grey", linestyle=":", label="at random")
        axes.set_xticks(range(len(results)), list(results), rotation=35, ha="right", fontsize="small")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.margins(y=0.25)
        axes.set_title(title, fontsize="medium")
    figure.axes[0].legend(fontsize="small", loc="upper left")
    return figure


def compare(
    output: Path, arms: list[str], seeds: list[int], epochs: int | None = None, options: Sequence[str] = ()
) -> tuple[Results, dict[str, Path]]:
    """Returns the scores of each kind of model, a row for each seed, and the folder of one model of each kind.

    `epochs` replaces the recipe's number; such runs have folders of their own. `options` are further ones of
    `pretrain.py`.
    """
    ending, longer = ("", []) if epochs is None else (f"-epochs{epochs}", ["--epochs", str(epochs)])
    data = output / "data"
    results, models = Results(), dict[str, Path]()
    for arm in arms:
        name = arm.replace(", ", "-").replace(" ", "-")
        given = [*ARMS[arm], *longer, *options]
        runs = [pretrain(data, output / f"{name}-seed{seed}{ending}", seed, RECIPE, given) for seed in seeds]
        begun = {} if results else {UNTRAINED: "untrained"}  # all begin with the same backbone
        for kind, folder in (begun | {arm: "teacher"}).items():
            results[kind] = [measure(run / folder, data) for run in runs]
            models[kind] = runs[0] / folder
    return results, models


def write_data(kind: str, folder: Path) -> None:
    """Makes the images of a kind, unless an earlier call made them."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    if kind == "collages":
        write_collages(folder, train=TRAIN, test=TEST)
    else:
        write_photographs(folder, patch_size=144, train_per_photograph=54, test_per_photograph=21, shards=2)


def main() -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("output", type=parse_path, help="the folder for data, runs, tables and pictures")
    parser.add_argument("--data", choices=("collages", "photographs"), default="collages", help="images to train on")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), help="tasks (default: all)")
    parser.add_argument("--seeds", nargs="+", type=parse_seed, default=[0, 1, 2], help="seeds of the runs")
    parser.add_argument("--epochs", type=int, help="epochs of each run (default: those of the recipe)")
    arguments, options = parser.parse_known_args()
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    data, seeds = arguments.output / "data", [*dict.fromkeys(arguments.seeds)]
    keep_settings(arguments.output, options, data=arguments.data)
    write_data(arguments.data, data)
    results, models = compare(arguments.output, arguments.arms, seeds, arguments.epochs, options)
    text = "\n".join([make_table(results), "", *judge(results)])
    write_text(arguments.output / "results.md", f"{text}\n")
    write_text(arguments.output / "results.json", json.dumps(results, indent=2) + "\n")
    save_figure(draw_results(results), arguments.output / "results.png")
    save_figure(draw_models(models, data, count=PICTURED), arguments.output / "matches.png")
    print(f"{text}\n\nPictures: {arguments.output / 'results.png'}, {arguments.output / 'matches.png'}")


if __name__ == "__main__":
    torch.manual_seed(0)
    run_command(main)
