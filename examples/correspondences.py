# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures and draws whether the regions of a model find each other in two photographs of one scene.

    python examples/correspondences.py MODEL
    python examples/correspondences.py timm:resnet50 --lines 80 --output resnet.png

Each region of the left view of a stereo pair is matched with the most similar region (cosine) of the right view, as the
region loss of EsViT does (arXiv 2106.09785, equation 2), and the match is compared with the true disparity.
`training/matching/stereo.py` describes the measure and the photographs. `training/correspondence.py` measures more.
"""

from pathlib import Path

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import numpy as np

from modeling_esvit.programs.packages import exit_without_package


with exit_without_package():
    from matplotlib.figure import Figure

from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.paths import parse_name, parse_path
from training.features.frozen_models import find_training_view, load_frozen
from training.features.regions import compute_region_side
from training.features.single_image import check_picture
from training.figures.matching import draw_matches
from training.matching.measures import compute_centres
from training.matching.stereo import StereoMatches, choose_size, load_stereo_pair, match_stereo
from training.matching.top_matches import TopMatches
from training.options.command import run_command
from training.state.figure_files import save_figure


def draw(found: StereoMatches, title: str, *, count: int = 40) -> Figure:
    """Draws both views, and a line for each of the `count` most similar matches: blue is right, orange wrong."""
    left, right, _ = load_stereo_pair()
    regions = found.select_regions(count)
    is_right = found.are_right(regions).numpy()
    shown = (left.height, left.width)
    starts, ends = (compute_centres(each, found.grid, shown).numpy() for each in (regions, found.matches[regions]))
    figure = Figure(figsize=(15, 5.6), layout="constrained")
    axes = figure.add_subplot()
    draw_matches(axes, TopMatches((np.array(left), np.array(right)), starts, ends, is_right))
    drawn = (
        f"{len(regions)} of the most similar matches: {is_right.sum()} right (blue), {(~is_right).sum()} wrong (orange)"
    )
    axes.set_title(f"{title}\n{drawn}")
    return figure


def describe(scores: dict[str, float]) -> str:
    return (
        f"{scores['within_one']:.1%} of {scores['regions']:.0f} regions matched to within one region "
        f"(at random {scores['chance_within_one']:.1%}, same place {scores['same_place_within_one']:.1%}), "
        f"{scores['exact']:.1%} exactly ({scores['chance_exact']:.1%}, {scores['same_place_exact']:.1%})"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("model", type=parse_name, help="a model folder, the name of a model on the Hub, or timm:NAME")
    parser.add_argument("--output", type=parse_path, default=Path("correspondences.png"), help="the picture")
    parser.add_argument(
        "--image_size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="size of the model's input in pixels (default: about 1024 1536, in whole regions)",
    )
    parser.add_argument(
        "--lines", type=int, default=40, help="matches to draw, the most similar first (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    check_picture(parser, options.output)
    model = load_frozen(options.model)
    (height, _), mean, std = find_training_view(model)
    size = tuple(options.image_size) if options.image_size else choose_size(compute_region_side(model.model, height))
    found = match_stereo(model.model, size=size, image_mean=mean, image_std=std, option="--image_size")
    summary = describe(found.score())
    save_figure(draw(found, summary, count=options.lines), options.output)
    print(f"{summary}\n{options.output}")


if __name__ == "__main__":
    run_command(main)
