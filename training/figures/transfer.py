# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws a transfer result: a line for each data set, a dot for each model."""

from typing import Any

from matplotlib.figure import Figure


OURS, THEIRS = "tab:blue", "tab:orange"


def draw(result: dict[str, Any]) -> Figure:
    """Draws the result of `transfer.py`, with "against" or without."""
    names = list(result["datasets"])
    figure = Figure(figsize=(8, 1.4 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    if "against" in result:
        other = result["against"]
        draw_scores(axes, names, other["datasets"], THEIRS, "D", f"{other['model']}")
        axes.set_title(f"{other['wins']} wins, {other['ties']} ties in {other['compared']} data sets", loc="left")
    draw_scores(axes, names, result["datasets"], OURS, "o", result["model"])
    for row, name in enumerate(names):
        if "score" not in result["datasets"][name]:
            axes.text(1, row, result["datasets"][name]["status"], color="gray", va="center")
    axes.set_yticks(range(len(names)), [f"{name}  ({result['datasets'][name]['metric']})" for name in names])
    axes.set(xlim=(0, 100), ylim=(len(names) - 0.5, -0.5), xlabel="score, percent")
    axes.grid(axis="both", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower left", ncols=1, frameon=False)
    return figure


def draw_scores(axes: Any, names: list[str], results: dict[str, Any], colour: str, marker: str, label: str) -> None:
    rows = [row for row, name in enumerate(names) if "score" in results.get(name, {})]
    scores = [100 * results[names[row]]["score"] for row in rows]
    average = f", average {sum(scores) / len(scores):.1f}" if scores else ""
    axes.scatter(scores, rows, color=colour, marker=marker, label=f"{label}{average}", zorder=3, clip_on=False)
