# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Pictures of accuracies: what they depend on, and how much. Each takes the result that its command writes."""

from __future__ import annotations  # matplotlib is imported where it draws: training begins sooner without it

from collections.abc import Iterable, Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_NAMED = 12  # lines, of which a legend can tell one from another
BEST, OTHER = "tab:orange", "tab:blue"
STAR: dict[str, Any] = {"linestyle": "", "marker": "*", "markersize": 16, "color": BEST, "markeredgecolor": "black"}


def draw_knn(result: dict[str, Any]) -> Figure:
    """Top-1 and top-5 of `knn.py` over the number of neighbours."""
    figure, axes = one_panel(f"k-NN of {result['model']}", "neighbours k")
    counts = sorted(int(name[1:].removesuffix("_top1")) for name in result if name.endswith("_top1"))
    draw_tops(axes, counts, [{top: result[f"k{count}_{top}"] for top in ("top1", "top5")} for count in counts])
    logarithmic(axes, counts)
    return figure


def draw_probe(result: dict[str, Any]) -> Figure:
    """Top-1 of each classifier of `linear_probe.py` over the epochs; a star marks the best epoch of the best one."""
    figure, axes = one_panel(f"Linear probe of {result['model']}", "epoch")
    best = result["best"]
    epochs = range(1, len(result["history"]) + 1)
    named = len(result["classifiers"]) <= MOST_NAMED
    for name in result["classifiers"]:
        shares = [scores[name]["top1"] for scores in result["history"]]
        style = {"color": "black", "linewidth": 2.5, "zorder": 3} if name == best else {"linewidth": 1, "alpha": 0.7}
        axes.plot(epochs, shares, ".-", label=name if named or name == best else None, **style)
    top = result["classifiers"][best]["best"]
    axes.plot([top["epoch"]], [top["top1"]], **STAR, zorder=4)
    whole_numbers(axes)
    axes.set_ylabel("top-1")
    figure.legend(loc="outside right upper", title="blocks, lr", fontsize="small")  # inside, of so many, it hides lines
    return figure


def draw_stored_features(result: dict[str, Any]) -> Figure:
    """Of `linear_features.py`: top-1 over the images of a class, or what chose the penalty, and the test beside it."""
    figure, axes = one_panel(f"Stored features of {result['model']}", "")
    axes.set_ylabel("top-1")
    if "low_shot" in result:
        draw_low_shot(axes, result)
    else:
        draw_penalties(axes, result)
    axes.legend()
    return figure


def draw_low_shot(axes: Axes, result: dict[str, Any]) -> None:
    """Mean over the seeds, with the sample standard deviation."""
    rows = sorted(result["low_shot"], key=lambda row: row["images"])
    counts = [row["images"] / result["classes"] for row in rows]
    for name, label, colour in ((result["solver"], result["solver"], BEST), ("knn", "k-NN", OTHER)):
        deviations = [stdev(row[name]) if len(row[name]) > 1 else 0 for row in rows]
        means = [mean(row[name]) for row in rows]
        axes.errorbar(counts, means, deviations, fmt="o-", capsize=4, color=colour, label=label)
    logarithmic(axes, counts)
    axes.set_xlabel("images of a class, on average")


def draw_penalties(axes: Axes, result: dict[str, Any]) -> None:
    held_out = result["held_out_top1"]
    if held_out:  # none where there was no choice
        penalties = [float(penalty) for penalty in held_out]
        axes.plot(penalties, list(held_out.values()), "o-", color=OTHER, label="held-out part of the training images")
    axes.plot([result["l2"]], [result["top1"]], **STAR, label="test images")
    axes.set(xscale="log", xlabel="l2")


def draw_epochs(result: dict[str, Any]) -> Figure:
    """Top-1 and top-5 of `finetune.py` after each epoch."""
    figure, axes = one_panel(f"Fine-tuning of {result['model']}", "epoch")
    whole_numbers(axes)
    draw_tops(axes, [scores["epoch"] for scores in result["history"]], result["history"])
    return figure


def draw_tops(axes: Axes, places: Sequence[float], scores: list[dict[str, float]]) -> None:
    """Top-1 and top-5 at each of `places`."""
    for top, colour in (("top1", BEST), ("top5", OTHER)):
        axes.plot(places, [each[top] for each in scores], "o-", color=colour, label=top.replace("top", "top-"))
    axes.legend()


def one_panel(title: str, xlabel: str) -> tuple[Figure, Axes]:
    """An empty figure whose height is a share of images."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=xlabel, ylabel="accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def whole_numbers(axes: Axes) -> None:
    """As marks of the axis of x."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def logarithmic(axes: Axes, values: Iterable[float]) -> None:
    """The axis of x, with the values that were measured as its marks."""
    marks = sorted(set(values))
    axes.set_xscale("log")
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
    axes.minorticks_off()
