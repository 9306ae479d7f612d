# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""What people would rather look at: the views of the first batch, and the curves of a run, in its folder."""

import json
import math
from pathlib import Path

import torch
from PIL import Image

from crops import IMAGENET_MEAN, IMAGENET_STD


GAP = 4  # pixels between views


def views_picture(groups: list[torch.Tensor], batch: int, images: int = 8) -> Image.Image:
    """
    Normalised views, in groups `[crops * B, 3, h, w]`, as a table: a row for each of the first images, in it the two
    global crops, then the local ones.
    """
    rows = [
        [pixels(group[crop * batch + image]) for group in groups for crop in range(len(group) // batch)]
        for image in range(min(images, batch))
    ]
    height = max(view.height for view in rows[0]) + GAP
    width = sum(view.width + GAP for view in rows[0])
    picture = Image.new("RGB", (width, height * len(rows)), "white")
    for number, row in enumerate(rows):
        left = 0
        for view in row:
            picture.paste(view, (left, number * height))
            left += view.width + GAP
    return picture


def pixels(view: torch.Tensor) -> Image.Image:
    """`[3, h, w]`, normalised -> an image."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    levels = ((view.float().cpu() * std + mean) * 255).round().clamp(0, 255).byte()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def draw_curves(log: Path, picture: Path, num_prototypes: int) -> None:
    """The curves of `log.jsonl` as a PNG: losses, what shows a collapse, and k-NN where it was measured."""
    from matplotlib.figure import Figure

    records = [json.loads(line) for line in log.read_text().splitlines()]
    scores = sorted({name for record in records for name in record if name.startswith("knn_")})
    panels = {
        "loss (ln K dotted)": ["loss", "view_loss", "region_loss"],
        "teacher's entropy, KL to the student": ["teacher_entropy", "kl"],
        "effective rank of the teacher's embeddings": ["embedding_rank"],
        **({"k-NN accuracy": scores} if scores else {}),
    }
    figure = Figure(figsize=(4 * len(panels), 3), layout="constrained")
    axes = figure.subplots(1, len(panels))
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        for name in names:
            points = [(r["step"], r[name]) for r in records if r.get(name) is not None]
            steps, values = zip(*points, strict=True) if points else ((), ())
            axis.plot(steps, values, label=name, marker="." if len(points) < 20 else None)
        axis.set(title=title, xlabel="step")
        axis.legend(fontsize="small")
    axes[0].axhline(math.log(num_prototypes), color="grey", linestyle=":")
    partial = picture.with_suffix(".partial")
    figure.savefig(partial, format="png", dpi=100)
    partial.replace(picture)
