# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws correspondences: matches between two views, and how far matches are from the truth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from training.matching.measures import ALPHAS
from training.matching.top_matches import TopMatches


RIGHT, WRONG = "deepskyblue", "orangered"
GAP = 0.06  # between two views, as a share of their width
OTHERS = ("tab:green", "tab:purple", "tab:red", "tab:brown", "tab:pink", "tab:olive", "tab:cyan")
LONGEST = 18.0  # inches, the longest side of a figure


def draw_matches(axes: Any, drawn: TopMatches) -> None:
    """Draws both views side by side, with a line for each match, whose colour says whether it is right."""
    left, right = drawn.views
    gap = max(1, round(GAP * left.shape[1]))
    canvas = np.full((max(left.shape[0], right.shape[0]), left.shape[1] + gap + right.shape[1], 3), 255, np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], left.shape[1] + gap :] = right
    axes.imshow(canvas, interpolation="nearest", extent=(0, canvas.shape[1], canvas.shape[0], 0))
    axes.axis("off")
    colours = np.where(drawn.right, RIGHT, WRONG).tolist()
    ends = drawn.ends + [left.shape[1] + gap, 0]
    lines = np.stack([drawn.starts, ends], axis=1)
    axes.add_collection(LineCollection(list(lines), colors=colours, linewidths=1.3))
    for points in (drawn.starts, ends):
        axes.scatter(points[:, 0], points[:, 1], s=16, c=colours, edgecolors="white", linewidths=0.6, zorder=2)


def draw_pairs(columns: dict[str, list[TopMatches]], models: Sequence[str] = ()) -> Figure:
    """Draws a column for each kind of pairs, under its title, and a row for each image.

    Args:
        models: the model of each row, if rows differ by it; their names stand above the rows.
    """
    rows = len(next(iter(columns.values())))
    scale = min(1.0, LONGEST / (4.6 * len(columns)), LONGEST / (2.5 * rows))
    figure = Figure(figsize=(scale * 4.6 * len(columns), scale * (2.5 * rows + 0.5)), layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (title, pairs) in enumerate(columns.items()):
        for row, drawn in enumerate(pairs):
            draw_matches(axes[row, column], drawn)
            count = f"{int(drawn.right.sum())} of {len(drawn.right)} right"
            count = f"{models[row]}: {count}" if models else count
            axes[row, column].set_title(f"{title}\n{count}" if row == 0 else count, fontsize="medium")
    return figure


Scores = Mapping[str, Mapping[str, float | None]]  # measure -> its values by name


def draw_curves(scores: Scores, name: str = "this model", against: Mapping[str, Scores] = {}) -> Figure:  # noqa: B006
    """Draws the share of matches within a distance for each measure, beside other models, chance and the best share.

    Chance is that of the model called `name`; it differs between models with other regions.
    """
    figure = Figure(figsize=(4.2 * len(scores), 3.8 + 0.25 * len(against)), layout="constrained")
    of_model = f" ({name})" if against else ""
    for axes, (measure, result) in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores.items(), strict=True):
        curves: list[tuple[Mapping[str, float | None], str, str, dict[str, Any]]] = [
            (result, "nearest_", f"nearest region{of_model}", {"color": "grey", "linestyle": "--"}),
            (result, "", name, {"color": RIGHT, "linewidth": 2.2}),
            *(
                (of[measure], "", other, {"color": OTHERS[number % len(OTHERS)]})
                for number, (other, of) in enumerate(against.items())
            ),
            (result, "chance_", f"at random{of_model}", {"color": "grey", "linestyle": ":"}),
        ]
        for of, guess, label, style in curves:
            points = [of[f"{guess}pck_{alpha:g}"] for alpha in ALPHAS]
            axes.plot(ALPHAS, np.array(points, dtype=float), label=label, **style)
        axes.set(
            title=measure, xlabel="distance from the truth, of the longer side", ylim=(0, 1.02), xlim=(0, ALPHAS[-1])
        )
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.grid(alpha=0.3)
        if not against:
            axes.legend(fontsize="small", loc="lower right")
    if against:  # many names would hide curves
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", fontsize="small")
    figure.axes[0].set_ylabel("matched regions")
    return figure
