# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Do the regions of a model find each other in two views of an image? The measure of the EsViT paper, and two with more
truth in them.

    python training/correspondence.py MODEL --data photographs:test --output correspondence.json
    python training/correspondence.py MODEL --data imagenet:val --measures mirrored --streaming
    torchrun --nproc_per_node 2 training/correspondence.py MODEL --data ...            # the same digits, shared work

    mirrored     the paper's (section 4.3): an image, and itself mirrored, recoloured and grey; of the ten most similar
                 pairs of regions those that are exactly right. On ImageNet it reports 95% for DINO (DeiT-S), 66% for
                 EsViT with the view task and 91% with both tasks.
    crops        two random crops and flips of an image: all regions whose true position lies in the other view
    recoloured   the same with the colours, blur and so on of the training
    stereo       the stereo pair that ships with scikit-image, by its disparity; no DATA

Beside each figure stands what guesses at random reach. MODEL is a model folder or a name on the Hub, of this project or
any other whose `last_hidden_state` has the regions, or `timm:` and the name of a model of timm. DATA is as for
`knn.py`, but needs no labels. With `--output` there are a table (.md) and pictures (.png, -curves.png) beside the JSON
file, and the same command continues a stopped one.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from evaluation import (
    COMMON_ERRORS,
    add_model_arguments,
    checked,
    checked_output,
    features_folder,
    open_device,
    run_command,
    split_name,
    write_result,
)
from frozen_models import FrozenModel, load_frozen, training_view
from image_sources import DataOptionError, ImageSource, open_source
from matching import (
    MIRRORED_NAMES,
    TOP,
    cell_distance,
    centres,
    mirrored,
    mirrored_chance,
    most_similar,
    regions_at,
    shares,
)
from matching_images import Measured, PairImages, match_pairs, measure_images
from matching_pictures import Drawn, draw_curves, draw_pairs, save_figure
from matching_views import MIRRORED, PAIRS, Pair
from modeling_esvit.embed_files import Parts
from region_features import Grid, Size, region_features
from stereo import SIZE, match_stereo


STEREO = "stereo"
DRAWN = 3  # images in the picture
TITLES = {
    "mirrored": "mirrored, recoloured, grey: ten most similar pairs",
    "crops": "random crops",
    "recoloured": "random crops, recoloured",
    "stereo": "stereo pair",
}

USER_ERRORS = COMMON_ERRORS


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument("--data", metavar="DATA[:SPLIT]", help="images; needed for all measures but stereo")
    parser.add_argument("--measures", nargs="+", choices=(*PAIRS, STEREO), help="(default: all that there is data for)")
    parser.add_argument("--image_size", type=int, help="pixels a side of the views (default: those of the model)")
    parser.add_argument(
        "--stereo_size", type=int, nargs=2, default=SIZE, metavar=("HEIGHT", "WIDTH"), help="(default: 1024 1536)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of crops and colours (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=32, help="images a process (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="a JSON file for the result; beside it, a table and pictures")
    arguments = checked_output(parser, checked(parser))
    arguments.measures = arguments.measures or ((*PAIRS, STEREO) if arguments.data else (STEREO,))
    if arguments.data is None and tuple(arguments.measures) != (STEREO,):
        parser.error("--data is missing: all measures but stereo need images")
    if arguments.image_size is not None and arguments.image_size < 1:
        parser.error(f"--image_size must be at least 1, got {arguments.image_size}")
    return arguments


def side_of(model: FrozenModel, given: int | None) -> int:
    """
    Raises:
        DataOptionError: the model's own images are not square, and no size is given.
    """
    (height, width), _, _ = training_view(model)
    if given is None and height != width:
        raise DataOptionError(f"the images of {model.name} are {height} x {width}: name an --image_size.")
    return given or height


def mirrored_result(scores: Tensor, grid: Grid, size: Size) -> dict[str, float | None]:
    """Means over images, beside what guesses at random reach; None for a similarity that no image has."""
    means = dict(zip(MIRRORED_NAMES, scores.nanmean(dim=0).tolist(), strict=True))
    known = {name: None if np.isnan(value) else value for name, value in means.items()}
    return known | mirrored_chance(grid, size)


def drawn_match(name: str, pair: Pair, model: FrozenModel) -> Drawn:
    """The ten most similar pairs of regions of one image; of `mirrored` those that are exactly right are right."""
    found, grid = match_pairs(model, [pair], [name])
    size = (pair.views[0].shape[0], pair.views[0].shape[1])
    truth = pair.truth(grid)
    known = truth.isfinite().all(dim=1)
    regions = most_similar(found.similarity.where(known, -torch.inf), TOP)[0]
    regions = regions[known[regions]]
    matches = found.regions[0, regions]
    if name == MIRRORED:
        right = matches == mirrored(grid)[regions]
    else:
        right = cell_distance(matches, regions_at(truth[regions], grid, size), grid[1]) <= 1
    starts, ends = (centres(each, grid, size).numpy() for each in (regions, matches))
    return Drawn(pair.views, starts, ends, right.numpy())


def picture(model: FrozenModel, source: ImageSource, measured: Measured) -> Figure:
    """Top matches in a few images, evenly spread over the source."""
    images = PairImages(source, measured)
    numbers = np.unique(np.linspace(0, len(images) - 1, DRAWN).astype(int)).tolist()
    loaded = [next(images.read(range(number, number + 1), threads=1)) for number in numbers]
    columns = zip(measured.pairs, zip(*(image.pairs for image in loaded if image.pairs), strict=True), strict=True)
    return draw_pairs({TITLES[name]: [drawn_match(name, pair, model) for pair in pairs] for name, pairs in columns})


class ImageMeasures(NamedTuple):
    """The result of all measures of images, what it was measured on, and what a stopped call would go on with."""

    result: dict[str, Any]
    source: ImageSource
    measured: Measured
    parts: Parts


def measure_source(arguments: argparse.Namespace, model: FrozenModel, output: Path) -> ImageMeasures:
    name, split = split_name(arguments.data)
    source = open_source(name, split=split, streaming=arguments.streaming)
    side = side_of(model, arguments.image_size)
    pairs = tuple(measure for measure in arguments.measures if measure in PAIRS)
    measured = Measured(pairs, side, arguments.seed, arguments.batch_size)
    size, (_, grid) = (side, side), region_features(model.model, torch.zeros(1, 3, side, side))
    scores, parts = measure_images(model, source, measured, output, threads=arguments.workers)
    result: dict[str, Any] = {"images": len(next(iter(scores.values()))), "image_size": side, "grid": list(grid)}
    for measure, rows in scores.items():
        result[measure] = mirrored_result(rows, grid, size) if measure == MIRRORED else shares(rows)
    return ImageMeasures(result, source, measured, parts)


def table(result: dict[str, Any]) -> str:
    """In Markdown."""
    lines = []
    if "images" in result:
        rows, columns = result["grid"]
        lines += [f"{result['images']} images of {result['image_size']} px, {rows} x {columns} regions.", ""]
    lines += ["| measure | | at random | best possible |", "| --- | --- | --- | --- |"]
    if MIRRORED in result:
        lines += mirrored_rows(result[MIRRORED])
    for name in placed(result):
        lines += position_rows(name, result[name])
    return "\n".join(lines)


def placed(result: dict[str, Any]) -> list[str]:
    """The measures in a result whose truth is a position."""
    return [name for name in TITLES if name in result and name != MIRRORED]


def mirrored_rows(result: dict[str, float]) -> list[str]:
    following = result["next_similarity"]
    return [
        f"| mirrored: right, of the ten most similar | {result['accuracy']:.1%} | {result['chance_accuracy']:.1%} "
        "| 100% |",
        f"| mirrored: distance from the truth | {result['distance']:.1f} px | {result['chance_distance']:.1f} px "
        "| 0 px |",
        f"| mirrored: eleventh similarity | {'none' if following is None else f'{following:.3f}'} | | |",
    ]


def position_rows(name: str, result: dict[str, float]) -> list[str]:
    def row(what: str, key: str, show: Callable[[float], str]) -> str:
        shown = (show(result[f"{guess}{key}"]) for guess in ("", "chance_", "nearest_"))
        return f"| {name}: {what} | {' | '.join(shown)} |"

    return [
        row("within one region", "within_one", "{:.1%}".format),
        row("exactly", "exact", "{:.1%}".format),
        row("distance from the truth", "error", "{:.1f} px".format),
        *(row(f"within {alpha:.0%} of the view", f"pck_{alpha:g}", "{:.1%}".format) for alpha in (0.05, 0.1, 0.2)),
    ]


def write_pictures(output: Path, result: dict[str, Any], model: FrozenModel, images: ImageMeasures | None) -> None:
    """Beside `output`: how far matches are from the truth, and top matches of a few images."""
    if placed(result):
        curves = draw_curves({TITLES[name]: result[name] for name in placed(result)})
        save_figure(curves, output.with_name(f"{output.stem}-curves.png"))
    if images is not None:
        save_figure(picture(model, images.source, images.measured), output.with_suffix(".png"))


def correspondence_command() -> None:
    arguments = parse_arguments()
    state = open_device(arguments.device)
    model = load_frozen(
        arguments.model,
        device=arguments.device or state.device,
        revision=arguments.revision,
        trust_remote_code=arguments.trust_remote_code,
    )
    result: dict[str, Any] = {name: getattr(arguments, name) for name in ("model", "data", "seed")}
    images = None
    if arguments.data is not None:
        with features_folder(None) as temporary:
            images = measure_source(arguments, model, arguments.output or temporary / "scores")
        result |= images.result
    if state.is_main_process:
        if STEREO in arguments.measures:
            _, mean, std = training_view(model)
            size = tuple(arguments.stereo_size)
            result[STEREO] = match_stereo(model.model, size=size, image_mean=mean, image_std=std).scores()
        write_result(result, f"Correspondences of {arguments.model}", table(result), arguments.output)
        if arguments.output is not None:
            write_pictures(arguments.output, result, model, images)
            if images is not None:
                images.parts.delete()
    state.destroy_process_group()


if __name__ == "__main__":
    run_command(correspondence_command, USER_ERRORS)
