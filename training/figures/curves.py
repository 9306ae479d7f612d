# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws the curves of a run from its log."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from modeling_esvit.storage.run_log import read_log
from training.state.figure_files import save_figure


SHARE, DIMENSIONS = "share", "dimensions"
TASK_LOSSES = ("view_loss", "region_loss")  # in nats
MATCHES = {
    "region_match_accuracy": "right: at the same place",
    "region_match_within_one": "at most one region off",
    "region_match_distinct": "regions that are chosen at all",
}


class Panel(NamedTuple):
    """Describes one diagram: the values by their names in the log, with their labels, and horizontal marks.

    healthy: How it looks in a run that learns, in a few words below the diagram.
    """

    title: str
    unit: str
    labels: dict[str, str]
    healthy: str
    marks: dict[str, float] = {}


def draw_curves(log: Path, picture: Path, num_prototypes: int, min_rank: float) -> None:
    """Draws the curves of `log.jsonl` as a PNG: what was measured of the features first, then losses and teacher.

    Lines mark ln K, the effective rank below which a run warns of a collapse, and what chance gives.
    """
    from matplotlib.figure import Figure

    records = read_log(log)
    panels = make_panels(records, math.log(num_prototypes), min_rank)
    figure = Figure(figsize=(4 * len(panels), 3.6), layout="constrained")
    for axis, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for name, label in panel.labels.items():
            draw_curve(axis, records, name, label)
        for label, value in panel.marks.items():
            axis.axhline(value, color="grey", linestyle=":", label=label)
        axis.set(title=panel.title, xlabel=f"step\n\nhealthy: {panel.healthy}", ylabel=panel.unit)
        set_scale(axis, panel.unit)
        axis.legend(fontsize="x-small")
    save_figure(figure, picture)


def make_panels(records: list[dict[str, Any]], uniform: float, min_rank: float) -> list[Panel]:
    """Returns the panels, those of k-NN and of region matches only if they were measured; `uniform` is ln K."""
    names = list(dict.fromkeys(name for record in records for name in record))
    scores = {name: label_score(name) for name in names if "_top" in name}
    panels = [Panel("k-NN of the teacher", SHARE, scores, "rises, then levels off")] if scores else []
    if {"region_match_accuracy", "region_match_chance"} <= {*names}:
        chance = next(record["region_match_chance"] for record in records if "region_match_chance" in record)
        healthy = "right ones above chance, rising;\nchosen ones do not fall towards 0"
        panels.append(Panel("most similar regions", SHARE, MATCHES, healthy, {"chance to be right": chance}))
    losses = {name: name.replace("_", " ") for name in (*(name for name in TASK_LOSSES if name in names), "loss")}
    terms = {name: name.replace("_", " ") for name in names if name.endswith("_loss") and name not in TASK_LOSSES}
    if terms:
        panels.append(
            Panel("further terms of the loss", "as computed, without weights", terms, "as who adds them says")
        )
    return [
        *panels,
        Panel(
            "losses",
            "nats",
            losses,
            "clearly below ln K; may rise while\nthe teacher learns to tell images apart",
            {f"ln K = {uniform:.2f}: nothing learned": uniform},
        ),
        Panel(
            "teacher",
            "nats",
            {"teacher_entropy": "entropy", "kl": "KL to the student"},
            "the KL falls; the entropy stays\nbetween 0 and ln K, at neither",
            {"ln K: uniform": uniform},
        ),
        Panel(
            "teacher's view embeddings",
            DIMENSIONS,
            {"embedding_rank": "effective rank"},
            "rises or stays, far above the mark;\nnear 1, all images look the same",
            {f"{min_rank:g}: warning": min_rank},
        ),
    ]


def set_scale(axis: Any, unit: str) -> None:
    """Scales the vertical axis as suits the unit."""
    if unit == SHARE:
        axis.set(ylim=(0, 1))
        axis.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    if unit == DIMENSIONS:
        from matplotlib.ticker import LogFormatter

        axis.set(yscale="log")
        axis.yaxis.set_major_formatter(LogFormatter(minor_thresholds=(3, 1)))
        axis.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(3, 1)))


def draw_curve(axis: Any, records: list[dict[str, Any]], name: str, label: str) -> None:
    """Draws the values of one name over the steps. A value that is not finite is a gap."""
    points = [(r["step"], math.nan if r[name] is None else r[name]) for r in records if name in r]
    steps, values = zip(*points, strict=True) if points else ((), ())
    axis.plot(steps, values, label=label, linewidth=1, marker="." if len(points) < 20 else None)


def label_score(name: str) -> str:
    """Turns the name `knn_k20_top1` into the label `top-1, k = 20`."""
    _, k, top = name.split("_")
    return f"{top.replace('top', 'top-')}, k = {k.removeprefix('k')}"
