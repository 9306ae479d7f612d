# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares the view task with view + region, and both with the untrained models that they start from.

The paper claims that the region task restores the correspondences that the view task loses (arXiv 2106.09785, section
4.3). Here both tasks train on bundled photographs for the same number of steps.

    python examples/compare_tasks.py comparison --tasks view view+region --seeds 0 1 2
    python examples/compare_tasks.py comparison --seeds 0 --epochs 25

The program cuts patches from the photographs, pretrains a small EsViT with each task from each seed, and measures all
of them with k-NN, a linear classifier, and the measures of `training/correspondence.py`. `results.md` gets the mean and
the standard deviation over the seeds, `results.json` everything, `results.png` and `matches.png` pictures. A repeated
command skips finished parts and continues a stopped run, so the tasks and seeds can also be run one by one.
compare_tasks.md reports the results, and what else was tried.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import datasets
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from transformers.utils import logging as transformers_logging

from examples.demo import pretrain
from examples.photographs import write_photographs
from modeling_esvit.storage.atomic import write_text
from modeling_esvit.storage.paths import parse_path
from training.data.sources import open_source
from training.evaluation.knn import TEMPERATURE, evaluate_banks
from training.evaluation.results import format_table
from training.evaluation.stored_features import FitOptions, evaluate_features
from training.features.bank import make_bank
from training.features.frozen_models import load_frozen
from training.figures.matching import draw_pairs
from training.matching.evaluation import measure_source, measure_stereo, replace_nan
from training.matching.over_images import Measured, PairImages, RegionMatcher
from training.matching.pairs import MIRRORED, PAIRS
from training.matching.top_matches import find_top_matches, pick_images
from training.state.figure_files import save_figure


RECIPE = "demo_regions"
PATCH, TRAIN, TEST = 144, 75, 20  # pixels, and patches of each photograph
SIDE = 96  # pixels of the views: 6 x 6 regions
K = 20
L2 = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]  # penalties of the linear classifier, chosen on held-out training patches
UNTRAINED = "untrained"
Results = dict[str, list[dict[str, Any]]]  # kind of model -> the scores of each seed
MEASURES = {
    "k-NN": ("knn", f"k{K}_top1"),
    "linear": ("linear", "top1"),
    "mirrored": ("mirrored", "accuracy"),
    "crops": ("crops", "exact"),
    "crops, recoloured": ("recoloured", "exact"),
    "stereo": ("stereo", "within_one"),
}


def measure(folder: Path, data: Path) -> dict[str, Any]:
    """Measures a model, or reads the scores that an earlier call left beside its folder."""
    file = folder.with_name(f"{folder.name}-scores.json")
    if file.exists():
        return json.loads(file.read_text())
    model, features = load_frozen(str(folder)), folder.with_name(f"{folder.name}-features")
    train, test = (
        make_bank(model, split, open_source(str(data), split=split), features) for split in ("train", "test")
    )
    cpu = torch.device("cpu")
    linear = FitOptions(solver="logistic", l2=L2, held_out=0.2, shots=None, seeds=[0])
    scores = {
        "knn": evaluate_banks(train, test, k=[K], temperature=TEMPERATURE, device=cpu),
        "linear": evaluate_features(linear, train, test, cpu),
    }
    measured, source = Measured(PAIRS, SIDE, seed=0, batch_size=32), open_source(str(data), split="test")
    correspondence, parts = measure_source(model, source, measured, features / "correspondence", threads=2)
    scores |= correspondence | {"stereo": replace_nan(measure_stereo(model))}
    write_text(file, json.dumps(scores, indent=2) + "\n")
    parts.delete()
    return scores


def read_values(scores: list[dict[str, Any]], title: str) -> list[float]:
    """Reads the value of each seed."""
    measure, name = MEASURES[title]
    return [each[measure][name] for each in scores]


def read_chance(results: Results, title: str) -> float:
    measure, name = MEASURES[title]
    [scores, *_] = results[UNTRAINED]
    return 1 / scores["knn"]["classes"] if measure in ("knn", "linear") else scores[measure][f"chance_{name}"]


def format_spread(values: list[float]) -> str:
    """Formats mean and sample standard deviation, in percent."""
    return f"{100 * mean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


def make_table(results: Results) -> str:
    rows = [["at random", *(f"{100 * read_chance(results, title):.1f}" for title in MEASURES)]]
    for name, scores in results.items():
        rows.append([name, *(format_spread(read_values(scores, title)) for title in MEASURES)])
    return "\n".join(format_table(["%", *MEASURES], rows))


def draw_results(results: Results) -> Figure:
    """Draws a panel for each measure: a bar for each model's mean, a dot for each seed, a line for chance."""
    figure = Figure(figsize=(2.3 * len(MEASURES), 3.6), layout="constrained")
    colours = ["silver", "orange", "deepskyblue", "mediumpurple"]
    for axes, title in zip(figure.subplots(1, len(MEASURES)), MEASURES, strict=True):
        for place, (scores, colour) in enumerate(zip(results.values(), colours, strict=False)):
            values = read_values(scores, title)
            axes.bar(place, mean(values), color=colour, width=0.7)
            axes.scatter(np.full(len(values), place), values, s=14, color="black", zorder=2)
        axes.axhline(read_chance(results, title), color="grey", linestyle=":", label="at random")
        axes.set_xticks(range(len(results)), list(results), rotation=35, ha="right", fontsize="small")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.margins(y=0.25)
        axes.set_title(title, fontsize="medium")
    figure.axes[0].legend(fontsize="small", loc="upper left")
    return figure


def draw_models(models: dict[str, Path], data: Path, count: int = 4) -> Figure:
    """Draws each model's ten most similar pairs of regions between the same images and their mirrored, grey selves."""
    measured = Measured((MIRRORED,), SIDE, seed=0, batch_size=1)
    images = pick_images(PairImages(open_source(str(data), split="test"), measured), count)
    columns = {}
    for name, folder in models.items():
        matcher = RegionMatcher(load_frozen(str(folder)), SIDE)
        columns[name] = [find_top_matches(MIRRORED, image.pixels[0], matcher) for image in images]
    return draw_pairs(columns)


def compare(
    output: Path, tasks: list[str], seeds: list[int], epochs: int | None = None
) -> tuple[Results, dict[str, Path]]:
    """Returns the scores of each kind of model, a row for each seed, and the folder of one model of each kind.

    `epochs` replaces the recipe's number; such runs have folders of their own.
    """
    ending, options = ("", []) if epochs is None else (f"-epochs{epochs}", ["--epochs", str(epochs)])
    data = output / "photographs"
    results, models = Results(), dict[str, Path]()
    for task in tasks:
        runs = [pretrain(data, output / f"{task}-seed{seed}{ending}", task, seed, RECIPE, options) for seed in seeds]
        begun = {} if results else {UNTRAINED: "untrained"}  # both tasks begin with the same backbone
        for name, folder in (begun | {task.replace("+", " + "): "teacher"}).items():
            results[name] = [measure(run / folder, data) for run in runs]
            models[name] = runs[0] / folder
    return results, models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=parse_path, help="the folder for data, runs, tables and pictures")
    parser.add_argument("--tasks", nargs="+", default=["view", "view+region"], choices=["view", "view+region"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    data = arguments.output / "photographs"
    if not data.exists():
        arguments.output.mkdir(parents=True, exist_ok=True)
        write_photographs(data, patch_size=PATCH, train_per_photograph=TRAIN, test_per_photograph=TEST, shards=2)
    results, models = compare(arguments.output, arguments.tasks, arguments.seeds, arguments.epochs)
    text = make_table(results)
    write_text(arguments.output / "results.md", f"{text}\n")
    write_text(arguments.output / "results.json", json.dumps(results, indent=2) + "\n")
    save_figure(draw_results(results), arguments.output / "results.png")
    save_figure(draw_models(models, data), arguments.output / "matches.png")
    print(f"{text}\n\nPictures: {arguments.output / 'results.png'}, {arguments.output / 'matches.png'}")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
