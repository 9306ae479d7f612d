# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws the curves of a run from its log."""

import json
import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from training.state.figure_files import save_figure


def draw_curves(log: Path, picture: Path, num_prototypes: int, min_rank: float) -> None:
    """Draws the curves of `log.jsonl` as a PNG: every loss, the signs of a collapse, and k-NN if it was measured.

    Lines mark ln K, and the effective rank below which a run warns of a collapse.
    """
    records = [json.loads(line) for line in log.read_text().splitlines()]
    names = list(dict.fromkeys(name for record in records for name in record))
    scores = {name: label_score(name) for name in names if "_top" in name}
    parts = [name for name in names if name.endswith("_loss")]
    panels = {
        "losses": {name: name.replace("_", " ") for name in (*parts, "loss")},
        "teacher": {"teacher_entropy": "entropy", "kl": "KL to the student"},
        "teacher's view embeddings": {"embedding_rank": "effective rank"},
        **({"k-NN of the teacher": scores} if scores else {}),
    }
    units = ("nats", "nats", "dimensions", "accuracy")
    figure = Figure(figsize=(4 * len(panels), 3), layout="constrained")
    axes = figure.subplots(1, len(panels))
    for axis, (title, labels), unit in zip(axes, panels.items(), units, strict=False):
        for name, label in labels.items():
            draw_curve(axis, records, name, label)
        axis.set(title=title, xlabel="step", ylabel=unit)
    draw_mark(axes[0], math.log(num_prototypes), f"ln K = {math.log(num_prototypes):.2f}: nothing learned")
    draw_mark(axes[1], math.log(num_prototypes), "ln K: uniform")
    draw_mark(axes[2], min_rank, f"{min_rank:g}: warning")
    axes[2].set(yscale="log")
    axes[2].yaxis.set_major_formatter(LogFormatter(minor_thresholds=(3, 1)))
    axes[2].yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(3, 1)))
    for axis in axes[3:]:
        axis.set(ylim=(0, 1))
        axis.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    for axis in axes:
        axis.legend(fontsize="x-small")
    save_figure(figure, picture)


def draw_curve(axis: Any, records: list[dict[str, Any]], name: str, label: str) -> None:
    """Draws the values of one name over the steps. A value that is not finite is a gap."""
    points = [(r["step"], math.nan if r[name] is None else r[name]) for r in records if name in r]
    steps, values = zip(*points, strict=True) if points else ((), ())
    axis.plot(steps, values, label=label, linewidth=1, marker="." if len(points) < 20 else None)


def draw_mark(axis: Any, value: float, label: str) -> None:
    axis.axhline(value, color="grey", linestyle=":", label=label)


def label_score(name: str) -> str:
    """Turns the name `knn_k20_top1` into the label `top-1, k = 20`."""
    _, k, top = name.split("_")
    return f"{top.replace('top', 'top-')}, k = {k.removeprefix('k')}"
