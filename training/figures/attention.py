# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws attention: the map of each head over the image, and the entropies of all blocks."""

import math
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from modeling_esvit.analysis.attention_maps import BlockAttention, mass_mask


COLUMNS = 8  # heads side by side
ROOM = 0.5  # bits above the picture's highest line

Point = tuple[int, int]  # x, y


class HeadMaps(NamedTuple):
    """Holds the maps of one block and image.

    tokens: `[heads, h, w]`.
    bits: the entropy of each head, with all that is not in the image, `[heads]`.
    lost: the mean share of what is not in the image.
    """

    number: int
    block: BlockAttention
    tokens: Tensor
    bits: Tensor
    lost: float


def draw_heads(
    image: Image.Image, maps: list[HeadMaps], *, point: Point | None, mass: float | None, sort: bool
) -> Figure:
    """Draws a part for each block: the image, then the map of each head over it, scaled to its largest weight."""
    rows = [math.ceil(len(each.tokens) / COLUMNS) for each in maps]
    columns = 1 + min(max(len(each.tokens) for each in maps), COLUMNS)
    side = 1.9
    cell_height = side * image.height / image.width + 0.25
    heights = [cell_height * count + 0.35 for count in rows]
    figure = Figure(figsize=(side * columns, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(maps), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, each, count in zip(parts, maps, rows, strict=True):
        part.suptitle(make_title(each), fontsize=10)
        axes = part.subplots(count, columns, squeeze=False)
        for cell in axes.flat:
            cell.axis("off")
        axes[0, 0].imshow(image)
        if point is not None:
            axes[0, 0].plot(*point, "o", markersize=7, markerfacecolor="red", markeredgecolor="white")
        order = each.bits.argsort(descending=True, stable=True).tolist() if sort else range(len(each.tokens))
        for cell, head in zip(axes[:, 1:].flat, order, strict=False):
            cell.imshow(overlay(image, each, head, mass))
            cell.set_title(f"head {head + 1}: {each.bits[head]:.1f} bits", fontsize=8)
    return figure


def make_title(maps: HeadMaps) -> str:
    rows, columns = maps.block.places.grid
    lost = f", {maps.lost:.0%} of the attention is outside of the image" if maps.lost >= 0.005 else ""
    return f"block {maps.number}, {rows} x {columns} tokens{lost}"


def overlay(image: Image.Image, maps: HeadMaps, head: int, mass: float | None) -> np.ndarray:
    """Lights the image where the head looks; with `mass`, in those parts that hold this share of the attention."""
    tokens = maps.tokens[head]
    shown = mass_mask(tokens, mass).float() if mass is not None else tokens / tokens.max().clamp(min=1e-30)
    light = maps.block.places.to_image(shown).cpu().numpy()[..., None]
    pixels = np.asarray(image, dtype=np.float32) / 255
    if mass is not None:
        return pixels * (0.2 + 0.8 * light)
    heat = colormaps["inferno"](light[..., 0])[..., :3]
    return np.clip(0.35 * pixels.mean(axis=2, keepdims=True) + 0.75 * heat, 0, 1)


def draw_entropies(rows: list[dict[str, Any]], title: str) -> Figure:
    """Draws a point for each head with the spread over the images, the line of their means, and what is possible."""
    figure = Figure(figsize=(max(6, 0.5 * len(rows) + 2), 4), layout="constrained")
    axes = figure.add_subplot()
    numbers = [row["block"] for row in rows]
    axes.step(numbers, [row["uniform"] for row in rows], where="mid", color="grey", linestyle=":", label="uniform")
    axes.plot(numbers, [row["mean"] for row in rows], color="tab:blue", linewidth=1, label="mean of the heads")
    for row in rows:
        places = np.linspace(-0.2, 0.2, len(row["heads"]) + 2)[1:-1] + row["block"]
        axes.errorbar(
            places, row["heads"], row["spread_over_images"], fmt="o", markersize=3, linewidth=0.6, color="tab:orange"
        )
    axes.errorbar(
        [], [], [], fmt="o", markersize=3, linewidth=0.6, color="tab:orange", label="a head, spread of images"
    )
    axes.set(xlabel="block", ylabel="entropy of attention, bits", xticks=numbers)
    axes.set_title(title, fontsize="small", wrap=True)
    axes.set_ylim(0, max(row["uniform"] for row in rows) + ROOM)
    figure.legend(fontsize="small", loc="outside lower center", ncols=3)
    return figure
