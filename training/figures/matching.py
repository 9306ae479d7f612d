# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws correspondences: matches between two views, and how far matches are from the truth."""

from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from training.matching.measures import ALPHAS
from training.matching.top_matches import TopMatches


RIGHT, WRONG = "deepskyblue", "orangered"
GAP = 0.06  # between two views, as a share of their width
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


def draw_pairs(columns: dict[str, list[TopMatches]]) -> Figure:
    """Draws a column for each kind of pairs, under its title, and a row for each image."""
    rows = len(next(iter(columns.values())))
    scale = min(1.0, LONGEST / (4.6 * len(columns)), LONGEST / (2.5 * rows))
    figure = Figure(figsize=(scale * 4.6 * len(columns), scale * (2.5 * rows + 0.5)), layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (title, pairs) in enumerate(columns.items()):
        for row, drawn in enumerate(pairs):
            draw_matches(axes[row, column], drawn)
            count = f"{int(drawn.right.sum())} of {len(drawn.right)} right"
            axes[row, column].set_title(f"{title}\n{count}" if row == 0 else count, fontsize="medium")
    return figure


def draw_curves(scores: dict[str, dict[str, float | None]]) -> Figure:
    """Draws the share of matches within a distance for each measure, beside chance and the best possible share."""
    figure = Figure(figsize=(4.2 * len(scores), 3.8), layout="constrained")
    for axes, (name, result) in zip(figure.subplots(1, len(scores), squeeze=False)[0], scores.items(), strict=True):
        for guess, label, style in (
            ("nearest_", "nearest region", {"color": "grey", "linestyle": "--"}),
            ("", "this model", {"color": RIGHT, "linewidth": 2.2}),
            ("chance_", "at random", {"color": "grey", "linestyle": ":"}),
        ):
            points = [result[f"{guess}pck_{alpha:g}"] for alpha in ALPHAS]
            axes.plot(ALPHAS, np.array(points, dtype=float), label=label, **style)
        axes.set(title=name, xlabel="distance from the truth, of the longer side", ylim=(0, 1.02), xlim=(0, ALPHAS[-1]))
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="lower right")
    figure.axes[0].set_ylabel("matched regions")
    return figure
