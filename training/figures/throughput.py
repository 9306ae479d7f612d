# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws accuracy against throughput: published methods as discs sized by parameters, measured models as numbers."""

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox


COLOURS = {"EsViT": "tab:blue", "DINO": "tab:orange"}
OTHERS = "darkgray"
OURS = "tab:red"
STAR, TRIANGLE = "*", "^"
# The name of a disc can stand to the right (1) or left (-1) of its centre, and above (1) or below (-1) it.
PLACES = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))


def draw(result: dict[str, Any], published: list[dict[str, Any]], factor: float | None) -> Figure:
    """Draws a result of `throughput.py` among published methods.

    Args:
        result: The result; a model without "linear" becomes a mark on the lower edge.
        published: Rows of `published_throughput.yaml`.
        factor: Factor from measured to published images per second, for a common axis; None if unknown.
    """
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots()
    names = list[tuple[Annotation, float]]()
    for row in published:
        colour = COLOURS.get(row["method"], OTHERS)
        place = (row["images_per_second"], row["linear"])
        area = 3 * row["parameters"]
        axes.scatter(*place, s=area, color=colour, alpha=0.5, linewidths=0)
        name = f"{row['method']} {row['name']}"
        label = axes.annotate(name, place, xytext=(0, 0), textcoords="offset points", fontsize=7)
        names.append((label, math.sqrt(area) / 2 + 2))
    lowest = min(row["linear"] for row in published) - 2
    for number, row in enumerate(result["models"].values(), start=1):
        draw_mark(axes, number, row["images_per_second"] * (factor or 1), row.get("linear", lowest), choose_marker(row))
    figure.legend(handles=build_legend(result["models"]), loc="outside lower left", ncols=2, frameon=False)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(min([lowest, *(row.get("linear", lowest) for row in result["models"].values())]) - 0.3)
    axes.margins(x=0.1)
    axes.set(xlabel="images per second", ylabel="ImageNet-1K linear evaluation, top-1 in percent")
    axes.set_title(write_title(result, factor), loc="left", fontsize=9)
    axes.grid(alpha=0.3, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    place_names(figure, axes, names)
    return figure


def place_names(figure: Figure, axes: Axes, names: list[tuple[Annotation, float]]) -> None:
    """Puts each name where it covers the least of other names, then of discs.

    `names` has each label with its distance from the centre of its disc, in points.
    """
    figure.draw_without_rendering()  # before this nothing has a position
    figure.set_layout_engine("none")  # names at the edge would change the layout
    discs = [find_box(each) for each in axes.collections]
    taken = [*surround(axes.bbox), *(each.get_window_extent() for each in axes.texts if each not in dict(names))]
    for label, distance in names:
        boxes = [move(label, distance, place) for place in PLACES]
        best = min(
            range(len(PLACES)),
            key=lambda place: (measure_overlap(boxes[place], taken), measure_overlap(boxes[place], discs)),
        )
        taken.append(move(label, distance, PLACES[best]))


def move(label: Annotation, distance: float, place: tuple[int, int]) -> Bbox:
    """Moves `label` to `place`, and returns what it covers there with a margin, in pixels."""
    right, above = place
    label.set(ha=("center", "left", "right")[right], va=("center", "bottom", "top")[above])
    along = distance / math.hypot(*place)
    label.xyann = (right * along, above * along)
    return label.get_window_extent().padded(2)


def find_box(disc: Any) -> Bbox:
    """Returns the square around a disc or mark, in pixels, which matplotlib does not compute."""
    [centre], [area] = disc.get_offset_transform().transform(disc.get_offsets()), disc.get_sizes()
    half = math.sqrt(area) / 2 * disc.figure.dpi / 72
    return Bbox([centre - half, centre + half])


def surround(box: Bbox) -> list[Bbox]:
    """Returns boxes that cover everything around a box, as far as any name reaches."""
    x, y, far = [box.x0, box.x1], [box.y0, box.y1], 1e4
    return [
        *(Bbox([[x[0] - far, y[0] - far], [x[0], y[1] + far]]), Bbox([[x[1], y[0] - far], [x[1] + far, y[1] + far]])),
        *(Bbox([[x[0], y[0] - far], [x[1], y[0]]]), Bbox([[x[0], y[1]], [x[1], y[1] + far]])),
    ]


def measure_overlap(box: Bbox, taken: list[Bbox]) -> float:
    """Returns the area of `box` that `taken` covers, in square pixels; overlaps count several times."""
    common = [Bbox.intersection(box, each) for each in taken]
    return sum(each.width * each.height for each in common if each is not None)


def choose_marker(row: dict[str, Any]) -> str:
    return STAR if "linear" in row else TRIANGLE


def draw_mark(axes: Any, number: int, speed: float, height: float, marker: str) -> None:
    """Draws a numbered mark; on the lower edge the heights of the numbers vary, so that close ones do not overlap."""
    axes.scatter(speed, height, marker=marker, s=260 if marker == STAR else 60, color=OURS, zorder=3, alpha=0.85)
    in_the_star, above = {"color": "white", "xytext": (0, -1)}, {"color": OURS, "xytext": (0, 9 + 9 * (number % 4))}
    place = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 8, "zorder": 4}
    axes.annotate(str(number), (speed, height), **place, **(in_the_star if marker == STAR else above))


def build_legend(models: dict[str, Any]) -> list[Line2D]:
    """Returns an entry of the legend for each model, with number, name and accuracy."""
    known = {name: f", {row['linear']:g}%" if "linear" in row else "" for name, row in models.items()}
    return [
        Line2D([], [], marker=choose_marker(row), color=OURS, linestyle="", label=f"{number}  {name}{known[name]}")
        for number, (name, row) in enumerate(models.items(), start=1)
    ]


def write_title(result: dict[str, Any], factor: float | None) -> str:
    about = f"Discs: published, on a V100; area by parameters. Red: measured on {result['device']}"
    if factor is None:
        return f"{about}.\nNo measured model is published, so the two scales differ."
    return f"{about},\ntimes {factor:.3g} (throughput.py explains the factor). On the lower edge: no accuracy given."
