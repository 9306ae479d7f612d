# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds and draws which region of one photograph corresponds to which region of another.

    python examples/match_photographs.py MODEL left.jpg right.jpg
    python examples/match_photographs.py timm:resnet50 left.jpg right.jpg --image_size 1024 --count 50 --output more.png

The program matches each region with the most similar one by cosine, as the region loss of EsViT does (arXiv 2106.09785,
equation 2). It keeps the pairs that choose each other and draws the most similar of them, some regions apart, each in
its own colour.
"""

from pathlib import Path

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import torch
from PIL import Image
from torch import Tensor

from modeling_esvit.programs.packages import exit_without_package


with exit_without_package():
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import ConnectionPatch

from modeling_esvit.images.decoding_arguments import add_pixel_arguments, read_decoding_arguments
from modeling_esvit.losses import match_regions
from modeling_esvit.programs.parser import ProgramParser, check_counts
from modeling_esvit.storage.paths import parse_name, parse_path
from training.features.frozen_models import find_training_view, load_frozen
from training.features.regions import Grid, compute_region_features, compute_region_side, find_even_grid
from training.features.single_image import check_picture, open_image
from training.matching.measures import select_apart
from training.matching.stereo import make_pixel_values
from training.options.command import run_command
from training.state.figure_files import save_figure


def match_mutually(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the pairs of left regions `[T, C]` and right regions `[T', C]` that are each other's most similar.

    They come as left indices, right indices and cosine similarities, each `[M]`, with the most similar pair first.
    """
    forth, back = match_regions(left[None], right[None])[0], match_regions(right[None], left[None])[0]
    regions = torch.arange(len(left))
    chosen = regions[back[forth] == regions]
    similarity = torch.nn.functional.cosine_similarity(left[chosen], right[forth[chosen]])
    order = similarity.argsort(descending=True, stable=True)
    return chosen[order], forth[chosen[order]], similarity[order]


def round_size(image: Image.Image, longer: int, stride: int) -> tuple[int, int]:
    """Returns height and width: multiples of the stride, close to the image scaled to a longer side of `longer`."""
    scale = longer / max(image.size)
    width, height = (max(stride, round(side * scale / stride) * stride) for side in image.size)
    return height, width


def locate(region: int, grid: Grid, image: Image.Image) -> tuple[float, float]:
    """Returns x and y of a region's centre, in pixels of the image."""
    row, column = divmod(region, grid[1])
    return (column + 0.5) * image.width / grid[1], (row + 0.5) * image.height / grid[0]


def draw(images: list[Image.Image], grids: list[Grid], pairs: list[tuple[int, int]]) -> Figure:
    """Draws both photographs at one height. Colours of pairs run from left to right of the first photograph."""
    shapes = [image.width / image.height for image in images]
    figure = Figure(figsize=(14, 14 / sum(shapes) + 0.6), layout="constrained")
    axes = figure.subplots(1, 2, width_ratios=shapes)
    for ax, image in zip(axes, images, strict=True):
        ax.imshow(image)
        ax.axis("off")
    for number, pair in enumerate(sorted(pairs, key=lambda pair: pair[0] % grids[0][1])):
        ends = [locate(region, grid, image) for region, grid, image in zip(pair, grids, images, strict=True)]
        colour = colormaps["turbo"](number / max(len(pairs) - 1, 1))
        coordinates: dict = {"coordsA": "data", "coordsB": "data", "axesA": axes[0], "axesB": axes[1]}
        line = ConnectionPatch(ends[0], ends[1], **coordinates, color=colour, linewidth=1.3)
        figure.add_artist(line)
        for ax, (x, y) in zip(axes, ends, strict=True):
            ax.scatter([x], [y], color=[colour], s=22, edgecolors="white", linewidths=0.6, zorder=3)
    figure.suptitle(
        f"The {len(pairs)} most similar pairs of regions that choose each other, some regions apart.\n"
        "Both ends of a line are on the same thing, if the model is good and the photographs share it.",
        fontsize=11,
    )
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("model", type=parse_name, help="a model folder, the name of a model on the Hub, or timm:NAME")
    parser.add_argument("left", type=parse_name, help="a photograph")
    parser.add_argument("right", type=parse_name, help="another photograph")
    parser.add_argument(
        "--output", type=parse_path, default=Path("matches.png"), help="the picture (default: %(default)s)"
    )
    parser.add_argument("--count", type=int, default=30, help="pairs to draw (default: %(default)s)")
    parser.add_argument(
        "--apart", type=int, default=3, help="least number of regions between two drawn ones (default: %(default)s)"
    )
    parser.add_argument("--image_size", type=int, default=768, help="pixels of the longer side (default: %(default)s)")
    add_pixel_arguments(parser)
    options = parser.parse_args(arguments)
    check_picture(parser, options.output, [options.left, options.right])
    check_counts(parser, options, "count", "image_size")
    model = load_frozen(options.model)
    (side, _), mean, std = find_training_view(model)
    images = [open_image(path, read_decoding_arguments(options)) for path in (options.left, options.right)]
    stride = compute_region_side(model.model, side)
    sizes = [round_size(image, options.image_size, stride) for image in images]
    views = [make_pixel_values(image, size, mean, std) for image, size in zip(images, sizes, strict=True)]
    (left, left_places), (right, right_places) = (compute_region_features(model.model, view[None]) for view in views)
    ours, theirs, similarity = match_mutually(left[0].cpu(), right[0].cpu())
    drawn = select_apart(ours, left_places.grid[1], options.count, options.apart)
    pairs = list(zip(ours[drawn].tolist(), theirs[drawn].tolist(), strict=True))
    save_figure(draw(images, [find_even_grid(left_places), find_even_grid(right_places)], pairs), options.output)
    print(f"{len(ours)} of {left.shape[1]} regions and their matches choose each other; the most similar {len(pairs)}, "
          f"from {similarity[0]:.3f} on, are in {options.output}")  # fmt: skip


if __name__ == "__main__":
    run_command(main)
