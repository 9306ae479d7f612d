# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows which regions are alike to a model: their first three principal components as colours.

    python training/region_colours.py MODEL a.jpg
    python training/region_colours.py MODEL a.jpg b.jpg --image_size 896 --smooth --output colours.png

The components are those of the regions of all images together, so that a colour means the same in each. The picture
shows the first 20 images. MODEL is a model folder or a name on the Hub, of this project or of others whose last hidden
state has a grid of regions. More pixels (`--image_size`, of the longer side) make more regions.
"""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import torch
from PIL import Image

from modeling_esvit.programs.packages import exit_without_package


with exit_without_package("pip install -e '.[training]'"):
    from matplotlib.figure import Figure

from modeling_esvit.analysis.region_colours import RegionPalette, fit_palette, paint
from modeling_esvit.analysis.token_places import regions_of
from modeling_esvit.images.decoding_arguments import add_pixel_arguments, read_decoding_arguments
from modeling_esvit.programs.parser import ProgramParser, check_counts
from modeling_esvit.storage.paths import parse_name, parse_path
from training.features.model_arguments import add_model_arguments
from training.features.single_image import (
    VisionModel,
    add_size_argument,
    check_picture,
    load_vision_model,
    open_image,
)
from training.options.command import run_command
from training.state.figure_files import DRAWN, name_drawn, save_figure


@torch.no_grad()
def colour_regions(
    vision: VisionModel, images: Iterable[Image.Image], size: int | None, *, smooth: bool
) -> tuple[RegionPalette, list[Image.Image]]:
    """Returns the palette of all images, and each image painted with it, in the size that the model saw."""
    found = [regions_of(vision.model, vision.pixels(image, size)) for image in images]
    palette = fit_palette(torch.cat([features[0] for features, _ in found]))
    return palette, [paint(palette.colours(features[0]), places, smooth=smooth) for features, places in found]


def draw(images: list[Image.Image], pictures: list[Image.Image], palette: RegionPalette) -> Figure:
    """Draws a row for each image: the image, and its colours."""
    heights = [4 * picture.height / picture.width for picture in pictures]
    figure = Figure(figsize=(8.25, sum(heights) + 0.6), layout="constrained")
    axes = figure.subplots(len(images), 2, squeeze=False, height_ratios=heights)
    for row, image, picture in zip(axes, images, pictures, strict=True):
        for cell, shown in zip(row, (image.resize(picture.size, Image.Resampling.BICUBIC), picture), strict=True):
            cell.imshow(shown)
            cell.axis("off")
    shares = " + ".join(f"{share:.0%}" for share in palette.explained.tolist())
    figure.suptitle(
        "Regions that the model finds similar have similar colours; those of a good model follow the things in the "
        f"images.\nThe colours are three components of the regions, {shares} of their variance.",
        fontsize=9,
    )
    return figure


def parse_arguments(arguments: list[str] | None) -> Any:
    parser = ProgramParser(__doc__, first="image_size smooth output device")
    add_model_arguments(parser, "a model folder, or the name of a model on the Hub")
    parser.add_argument("images", type=parse_name, nargs="+", metavar="IMAGE", help="image files, coloured together")
    add_size_argument(parser)
    add_pixel_arguments(parser)
    parser.add_argument("--smooth", action="store_true", help="blend the colours of neighbouring regions")
    parser.add_argument("--output", type=parse_path, default=Path("colours.png"), help="the picture")
    options = parser.parse_args(arguments)
    check_picture(parser, options.output, options.images)
    check_counts(parser, options, "image_size")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    decoding = read_decoding_arguments(options)
    drawn = [open_image(path, decoding) for path in options.images[:DRAWN]]
    others = (open_image(path, decoding) for path in options.images[DRAWN:])
    vision = load_vision_model(options, with_attention=False)
    palette, pictures = colour_regions(vision, chain(drawn, others), options.image_size, smooth=options.smooth)
    save_figure(draw(drawn, pictures[:DRAWN], palette), options.output)
    print(f"The colours have {palette.explained.sum():.0%} of the regions' variance")
    print(name_drawn(options.output, DRAWN, {"images": len(options.images)}))


if __name__ == "__main__":
    run_command(main)
