# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of a run: the views of its first batch, and the curves of its log."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from training.monitoring.collapse import MIN_RANK
from training.state.figure_files import save_figure
from training.views.pixels import IMAGENET_MEAN, IMAGENET_STD


GAP = 4  # pixels between views
TITLE = 16  # height of the line above
SMALLEST = 128  # smaller views are enlarged, by a whole number, to about this
BACKGROUND = (200, 220, 240)  # not a grey: views may be white, black, or any grey


def draw_views(groups: list[torch.Tensor], batch: int, images: int = 8) -> Image.Image:
    """Draws normalised views, in groups `[crops * B, 3, h, w]`, as a table.

    Each of the first images has a row: its two global crops, then each set of local ones, under their number and size.
    """
    tallest = max(group.shape[2] for group in groups)
    scale = max(1, SMALLEST // tallest)
    stacked = [max(1, tallest // group.shape[2]) for group in groups]
    height = max(high * (scale * group.shape[2] + GAP) for high, group in zip(stacked, groups, strict=True))
    height += GAP  # so that images stand apart more than their crops
    columns = [
        draw_set(group, batch, min(images, batch), high, height, scale)
        for high, group in zip(stacked, groups, strict=True)
    ]
    picture = Image.new("RGB", (sum(column.width for column in columns), columns[0].height), BACKGROUND)
    left = 0
    for column in columns:
        picture.paste(column, (left, 0))
        left += column.width
    return picture


def draw_set(group: torch.Tensor, batch: int, images: int, stacked: int, row_height: int, scale: int) -> Image.Image:
    """Draws one set of crops: a row of `row_height` pixels for each image, with `stacked` crops above one another."""
    crops, (height, width) = len(group) // batch, group.shape[2:]
    title = f"{crops} crop{'s' * (crops > 1)} of {width} px"
    wide = math.ceil(crops / stacked)
    size = (max(wide * (scale * width + GAP), round(load_font().getlength(title)) + GAP), TITLE + images * row_height)
    picture = Image.new("RGB", size, BACKGROUND)
    ImageDraw.Draw(picture).text((0, 1), title, "black", load_font())
    for image in range(images):
        for crop in range(crops):
            down, right = divmod(crop, wide)
            corner = (right * (scale * width + GAP), TITLE + image * row_height + down * (scale * height + GAP))
            view = to_image(group[crop * batch + image])
            picture.paste(view.resize((scale * width, scale * height), Image.Resampling.NEAREST), corner)
    return picture


def load_font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=12)


def to_image(view: torch.Tensor) -> Image.Image:
    """Turns a normalised view `[3, h, w]` into an image."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    levels = ((view.float().cpu() * std + mean) * 255).round().clamp(0, 255).byte()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def draw_curves(log: Path, picture: Path, num_prototypes: int) -> None:
    """Draws the curves of `log.jsonl` as a PNG: every loss, the signs of a collapse, and k-NN if it was measured."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

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
    draw_mark(axes[2], MIN_RANK, f"{MIN_RANK:g}: warning")
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
