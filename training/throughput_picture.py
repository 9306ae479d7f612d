# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The figure of accuracy against throughput: published methods as discs, of their parameters' size, ours as stars."""

import math
from pathlib import Path
from typing import Any

import matplotlib


COLOURS = {"EsViT": "tab:blue", "DINO": "tab:orange"}
OTHERS = "darkgray"
OURS = "tab:red"


def draw(result: dict[str, Any], published: list[dict[str, Any]], factor: float | None, path: Path) -> None:
    """
    Args:
        result: of `throughput.py`. A model without "linear" is a mark on the lower edge.
        published: rows of `published_throughput.yaml`.
        factor: by which measured images per second are multiplied to stand on the published axis; None if unknown.
    """
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6), layout="constrained")
    for row in published:
        colour = COLOURS.get(row["method"], OTHERS)
        place = (row["images_per_second"], row["linear"])
        area = 3 * row["parameters"]
        axes.scatter(*place, s=area, color=colour, alpha=0.5, linewidths=0)
        above = (0, math.sqrt(area / math.pi) + 2)
        label = f"{row['method']} {row['name']}"
        axes.annotate(label, place, xytext=above, textcoords="offset points", fontsize=7, ha="center")
    lowest = min(row["linear"] for row in published) - 2
    for name, row in result["models"].items():
        mark(axes, name, row["images_per_second"] * (factor or 1), row.get("linear"), lowest)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(min([lowest, *(row.get("linear", lowest) for row in result["models"].values())]) - 0.3)
    axes.margins(x=0.1)
    axes.set(xlabel="images per second", ylabel="ImageNet-1K linear evaluation, top-1 in percent")
    axes.set_title(title(result, factor), loc="left", fontsize=9)
    axes.grid(alpha=0.3, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def mark(axes: Any, name: str, speed: float, linear: float | None, lowest: float) -> None:
    """A star with its name; or a triangle on the lower edge, its name upright, so that neighbours do not overlap."""
    place = (speed, lowest if linear is None else linear)
    axes.scatter(*place, marker="^" if linear is None else "*", s=90, color=OURS, zorder=3)
    turned = {"rotation": 90, "va": "bottom", "xytext": (0, 6)} if linear is None else {"va": "top", "xytext": (0, -6)}
    axes.annotate(name, place, textcoords="offset points", fontsize=8, ha="center", color=OURS, **turned)


def title(result: dict[str, Any], factor: float | None) -> str:
    about = f"Discs: published, on a V100; area by parameters. Red: measured on {result['device']},\n"
    if factor is None:
        return f"{about}with nothing published among them: not on one scale."
    return f"{about}times {factor:.3g} (see throughput.py). On the lower edge: no accuracy given."
