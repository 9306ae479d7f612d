# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows what a model looks at: its attention over an image, a picture for each head.

    python training/attention.py MODEL image.jpg --query 120 80 --output attention.png
    python training/attention.py MODEL image.jpg --of received --blocks 2 4 12
    python training/attention.py MODEL image.jpg --mass 0.6 --sort               # as the original draws it

MODEL is a model folder or a name on the Hub, of this project or another ViT of transformers (DINO, DINOv2, ...). The
model sees the whole image, in its own proportions. Maps are in image coordinates: windows are put back together, rolled
and padded frames undone. `--of query` is where one point looks (x and y in pixels of the file), `--of class` where the
class or global token looks, `--of received` who is looked at by all. What is not dark is the query's window.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from modeling_esvit.analysis.attention_maps import AttentionLayoutError, BlockAttention, block_attentions, mass_mask
from training.features.model_arguments import add_model_arguments
from training.features.single_image import (
    add_size_argument,
    check_picture,
    load_vision_model,
    normalise,
    open_image,
)
from training.options.command import check_counts, run_command
from training.state.figure_files import save_figure


COLUMNS = 8  # heads side by side
KINDS = ("query", "class", "received")

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


def select_head_maps(number: int, block: BlockAttention, of: str, point: Point) -> HeadMaps:
    """Returns the maps of the only image of a batch; `point` in pixels of what the model saw."""
    if of == "received":
        tokens = block.received()[0]
        entropies = compute_entropy_bits(normalise(tokens).flatten(1))
        return HeadMaps(number, block, tokens, entropies, compute_lost_share(tokens))
    found = block.global_map() if of == "class" else block.query_map(*point)
    elsewhere = torch.cat([found.to_global[0], found.to_padding[0, :, None]], dim=1)
    everything = torch.cat([found.tokens[0].flatten(1), elsewhere], dim=1)
    tokens = found.tokens[0]
    return HeadMaps(number, block, tokens, compute_entropy_bits(everything), compute_lost_share(tokens))


def compute_entropy_bits(weights: Tensor) -> Tensor:
    return torch.special.entr(weights).sum(dim=-1) / math.log(2)


def compute_lost_share(tokens: Tensor) -> float:
    return max(1 - tokens.sum(dim=(1, 2)).mean().item(), 0.0)


def choose_blocks(numbers: Sequence[int] | None, count: int) -> list[int]:
    """Returns the numbers of the chosen blocks, from 1 on. Negative ones count from the end; the default is the last.

    Raises:
        AttentionLayoutError: there is no such block.
    """
    chosen = [number + count + 1 if number < 0 else number for number in numbers or [count]]
    wrong = [number for number, place in zip(numbers or [], chosen, strict=False) if not 1 <= place <= count]
    if wrong:
        raise AttentionLayoutError(f"There is no block {wrong[0]}; the model has blocks 1 to {count}.")
    return chosen


def draw(image: Image.Image, maps: list[HeadMaps], *, point: Point | None, mass: float | None, sort: bool) -> Figure:
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
    from matplotlib import colormaps

    heat = colormaps["inferno"](light[..., 0])[..., :3]
    return np.clip(0.35 * pixels.mean(axis=2, keepdims=True) + 0.75 * heat, 0, 1)


def parse_arguments(arguments: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser, "a model folder, or the name of a model on the Hub")
    parser.add_argument("image", help="any image file that Pillow reads")
    parser.add_argument("--of", choices=KINDS, default="query", help="whose attention (default: %(default)s)")
    parser.add_argument("--query", type=int, nargs=2, metavar=("X", "Y"), help="the point (default: the middle)")
    parser.add_argument("--blocks", type=int, nargs="+", help="from 1, or from the end: -1 (default: the last one)")
    parser.add_argument("--mass", type=float, help="show the smallest part with this share of the attention")
    parser.add_argument("--sort", action="store_true", help="heads by entropy, the widest first")
    add_size_argument(parser)
    parser.add_argument("--output", type=Path, default=Path("attention.png"), help="the picture (%(default)s)")
    options = parser.parse_args(arguments)
    check_picture(parser, options.output)
    if options.mass is not None and not 0 < options.mass <= 1:
        parser.error(f"--mass must be above 0 and at most 1, got {options.mass}")
    check_counts(parser, options, "size")
    if options.query is not None and options.of != "query":
        parser.error(f"--query has no meaning with --of {options.of}")
    return options


def scale_point(query: Sequence[int] | None, image: Image.Image, size: tuple[int, int]) -> Point:
    """Scales x, y of the file to what the model sees, `size` (height, width).

    Raises:
        AttentionLayoutError: the point is outside.
    """
    x, y = query or (image.width // 2, image.height // 2)
    if not (0 <= x < image.width and 0 <= y < image.height):
        raise AttentionLayoutError(f"--query {x} {y} is outside of the image of {image.width} x {image.height} pixels.")
    return x * size[1] // image.width, y * size[0] // image.height


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    vision, image = load_vision_model(options), open_image(options.image)
    pixels = vision.pixels(image, options.size)
    point = scale_point(options.query, image, (pixels.shape[2], pixels.shape[3]))
    blocks = block_attentions(vision.model, pixels)
    numbers = choose_blocks(options.blocks, len(blocks))
    maps = [select_head_maps(number, blocks[number - 1], options.of, point) for number in numbers]
    seen = image.resize((pixels.shape[3], pixels.shape[2]), Image.Resampling.BICUBIC)
    marked = point if options.of == "query" else None
    save_figure(draw(seen, maps, point=marked, mass=options.mass, sort=options.sort), options.output)
    for each in maps:
        print(f"{make_title(each)}: {each.bits.mean():.2f} bits, the mean of {len(each.bits)} heads")
    print(options.output)


if __name__ == "__main__":
    run_command(main)
