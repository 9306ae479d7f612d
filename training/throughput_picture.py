# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The figure of accuracy against throughput: published methods as discs, by parameters, ours as numbers."""

import math
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D


COLOURS = {"EsViT": "tab:blue", "DINO": "tab:orange"}
OTHERS = "darkgray"
OURS = "tab:red"
STAR, TRIANGLE = "*", "^"


def draw(result: dict[str, Any], published: list[dict[str, Any]], factor: float | None) -> Figure:
    """
    Args:
        result: of `throughput.py`. A model without "linear" is a mark on the lower edge.
        published: rows of `published_throughput.yaml`.
        factor: by which measured images per second are multiplied to stand on the published axis; None if unknown.
    """
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots()
    for row in published:
        colour = COLOURS.get(row["method"], OTHERS)
        place = (row["images_per_second"], row["linear"])
        area = 3 * row["parameters"]
        axes.scatter(*place, s=area, color=colour, alpha=0.5, linewidths=0)
        above = (0, math.sqrt(area / math.pi) + 2)
        label = f"{row['method']} {row['name']}"
        axes.annotate(label, place, xytext=above, textcoords="offset points", fontsize=7, ha="center")
    lowest = min(row["linear"] for row in published) - 2
    for number, row in enumerate(result["models"].values(), start=1):
        mark(axes, number, row["images_per_second"] * (factor or 1), row.get("linear", lowest), marker_of(row))
    figure.legend(handles=entries(result["models"]), loc="outside lower left", ncols=2, frameon=False)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(min([lowest, *(row.get("linear", lowest) for row in result["models"].values())]) - 0.3)
    axes.margins(x=0.1)
    axes.set(xlabel="images per second", ylabel="ImageNet-1K linear evaluation, top-1 in percent")
    axes.set_title(title(result, factor), loc="left", fontsize=9)
    axes.grid(alpha=0.3, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def marker_of(row: dict[str, Any]) -> str:
    return STAR if "linear" in row else TRIANGLE


def mark(axes: Any, number: int, speed: float, height: float, marker: str) -> None:
    """Names would cover each other where models are close, and numbers on the lower edge, if they had one height."""
    axes.scatter(speed, height, marker=marker, s=260 if marker == STAR else 60, color=OURS, zorder=3, alpha=0.85)
    in_the_star, above = {"color": "white", "xytext": (0, -1)}, {"color": OURS, "xytext": (0, 9 + 9 * (number % 4))}
    place = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 8, "zorder": 4}
    axes.annotate(str(number), (speed, height), **place, **(in_the_star if marker == STAR else above))


def entries(models: dict[str, Any]) -> list[Line2D]:
    """Number, name and accuracy of each, for the legend."""
    known = {name: f", {row['linear']:g}%" if "linear" in row else "" for name, row in models.items()}
    return [
        Line2D([], [], marker=marker_of(row), color=OURS, linestyle="", label=f"{number}  {name}{known[name]}")
        for number, (name, row) in enumerate(models.items(), start=1)
    ]


def title(result: dict[str, Any], factor: float | None) -> str:
    about = f"Discs: published, on a V100; area by parameters. Red: measured on {result['device']},\n"
    if factor is None:
        return f"{about}with nothing published among them: not on one scale."
    return f"{about}times {factor:.3g} (see throughput.py). On the lower edge: no accuracy given."
