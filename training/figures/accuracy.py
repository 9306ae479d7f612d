# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws accuracies over what they depend on. Each function takes the result that its command writes."""

from __future__ import annotations  # matplotlib is imported where it draws: training begins sooner without it

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


TOPS = ("top1", "top5")
MOST_NAMED = 12  # more lines cannot be told apart in a legend
BEST, OTHER = "tab:orange", "tab:blue"
OTHERS = ("tab:green", "tab:purple", "tab:red", "tab:brown", "tab:pink", "tab:olive", "tab:cyan")
CHANCE: dict[str, Any] = {"color": "grey", "linestyle": ":", "label": "chance"}
STAR: dict[str, Any] = {"linestyle": "", "marker": "*", "markersize": 16, "color": BEST, "markeredgecolor": "black"}


def draw_knn(result: dict[str, Any]) -> Figure:
    """Draws top-1 of `knn.py` over the number of neighbours, beside other models and chance; top-5, too, of a model
    alone.
    """
    figure, axes = make_panel(f"k-NN of {result['model']}", "neighbours k")
    counts = sorted(int(name[1:].removesuffix("_top1")) for name in result if name.endswith("_top1"))
    if result["against"]:
        axes.set(title="k-NN", ylabel="top-1")
        for name, of, style in list_models(result):
            axes.plot(counts, [of[f"k{count}_top1"] for count in counts], "o-", label=name, **style)
    else:
        shares = [{top: result[f"k{count}_{top}"] for top in TOPS if f"k{count}_{top}" in result} for count in counts]
        draw_tops(axes, counts, shares)
    axes.axhline(result["chance"], **CHANCE)
    show_legend(axes)
    use_log_scale(axes, counts)
    return figure


def list_models(result: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], dict[str, Any]]]:
    """Yields name, result and style of the model, and of those that it stands beside."""
    yield result["model"], result, {"color": BEST, "linewidth": 2.5, "zorder": 3}
    for number, (name, of) in enumerate(result["against"].items()):
        yield name, of, {"color": OTHERS[number % len(OTHERS)]}


def show_legend(axes: Axes) -> None:
    """Shows the legend below the panel, where long names of models hide nothing."""
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize="small")  # type: ignore[union-attr]


def draw_probe(result: dict[str, Any]) -> Figure:
    """Draws top-1 of each classifier of `linear_probe.py` over the epochs; a star marks the best epoch of the best.

    Beside other models it draws the best classifier of each, and chance.
    """
    if result["against"]:
        return draw_best_probes(result)
    figure, axes = make_panel(f"Linear probe of {result['model']}", "epoch")
    best = result["best"]
    epochs = range(1, len(result["history"]) + 1)
    named = len(result["classifiers"]) <= MOST_NAMED
    for name in result["classifiers"]:
        shares = [scores[name]["top1"] for scores in result["history"]]
        style = {"color": "black", "linewidth": 2.5, "zorder": 3} if name == best else {"linewidth": 1, "alpha": 0.7}
        axes.plot(epochs, shares, ".-", label=name if named or name == best else None, **style)
    top = result["classifiers"][best]["best"]
    axes.plot([top["epoch"]], [top["top1"]], **STAR, zorder=4)
    use_whole_numbers(axes)
    axes.set_ylabel("top-1")
    axes.axhline(result["chance"], **CHANCE)
    figure.legend(loc="outside right upper", title="blocks, lr", fontsize="small")  # inside it would hide lines
    return figure


def draw_best_probes(result: dict[str, Any]) -> Figure:
    """Draws top-1 of the best classifier of each model over the epochs, and chance."""
    figure, axes = make_panel("Linear probe", "epoch")
    axes.set_ylabel("top-1")
    for name, of, style in list_models(result):
        shares = [scores[of["best"]]["top1"] for scores in of["history"]]
        axes.plot(range(1, len(shares) + 1), shares, ".-", label=f"{name} ({of['best']})", **style)
    axes.axhline(result["chance"], **CHANCE)
    use_whole_numbers(axes)
    show_legend(axes)
    return figure


def draw_stored_features(result: dict[str, Any]) -> Figure:
    """Draws top-1 of `linear_features.py` over the images per class, or over the penalties that were tried."""
    figure, axes = make_panel(f"Stored features of {result['model']}", "")
    axes.set_ylabel("top-1")
    if "low_shot" in result:
        draw_low_shot(axes, result)
    else:
        draw_penalties(axes, result)
    axes.axhline(result["chance"], **CHANCE)
    show_legend(axes)
    return figure


def draw_low_shot(axes: Axes, result: dict[str, Any]) -> None:
    """Draws the mean over the seeds, with the sample standard deviation."""
    rows = sorted(result["low_shot"], key=lambda row: row["images"])
    counts = [row["images"] / result["classes"] for row in rows]
    for name, label, colour in ((result["solver"], result["solver"], BEST), ("knn", "k-NN", OTHER)):
        deviations = [stdev(row[name]) if len(row[name]) > 1 else 0 for row in rows]
        means = [mean(row[name]) for row in rows]
        axes.errorbar(counts, means, deviations, fmt="o-", capsize=4, color=colour, label=label)
    for name, of, style in [*list_models(result)][1:]:
        means = [mean(row[result["solver"]]) for row in sorted(of["low_shot"], key=lambda row: row["images"])]
        axes.plot(counts, means, "o--", label=f"{name}, {result['solver']}", **style)
    use_log_scale(axes, counts)
    axes.set_xlabel("images of a class, on average")


def draw_penalties(axes: Axes, result: dict[str, Any]) -> None:
    held_out = result["held_out_top1"]
    if held_out:  # empty if the penalty was given
        penalties = [float(penalty) for penalty in held_out]
        axes.plot(penalties, list(held_out.values()), "o-", color=OTHER, label="held-out part of the training images")
    axes.plot([result["l2"]], [result["top1"]], **STAR, label="test images")
    for name, of, style in [*list_models(result)][1:]:
        axes.plot([of["l2"]], [of["top1"]], **STAR | {"color": style["color"]}, label=f"test images, {name}")
    axes.set(xscale="log", xlabel="l2")


def draw_epochs(result: dict[str, Any]) -> Figure:
    """Draws top-1 and top-5 of `finetune.py` after each epoch."""
    figure, axes = make_panel(f"Fine-tuning of {result['model']}", "epoch")
    use_whole_numbers(axes)
    draw_tops(axes, [scores["epoch"] for scores in result["history"]], result["history"])
    axes.legend()
    return figure


def draw_tops(axes: Axes, places: Sequence[float], scores: list[dict[str, float]]) -> None:
    """Draws top-1 at each of `places`, and top-5 where it was measured."""
    for top, colour in zip(TOPS, (BEST, OTHER), strict=True):
        if all(top in each for each in scores):
            axes.plot(places, [each[top] for each in scores], "o-", color=colour, label=top.replace("top", "top-"))


def make_panel(title: str, xlabel: str) -> tuple[Figure, Axes]:
    """Returns an empty figure whose y axis is a share of images."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=xlabel, ylabel="accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def use_whole_numbers(axes: Axes) -> None:
    """Puts ticks of the x axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def use_log_scale(axes: Axes, values: Iterable[float]) -> None:
    """Makes the x axis logarithmic, with ticks at the measured values."""
    ticks = sorted(set(values))
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
