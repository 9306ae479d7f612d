# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures whether the regions of a model find each other in two views of an image, as the EsViT paper does, and in two
ways with more truth in them.

    python training/correspondence.py MODEL --data photographs:test --output correspondence.json
    python training/correspondence.py MODEL --data imagenet:val --measures mirrored --streaming
    torchrun --nproc_per_node 2 training/correspondence.py MODEL --data ...            # the same digits, shared work

    mirrored     the paper's (section 4.3): an image, and itself mirrored, recoloured and grey; of the ten most similar
                 pairs of regions those that are exactly right. On ImageNet it reports 95% for DINO (DeiT-S), 66% for
                 EsViT with the view task and 91% with both tasks.
    crops        two random crops and flips of an image: all regions whose true position lies in the other view
    recoloured   the same with the colours, blur and so on of the training
    stereo       the stereo pair that ships with scikit-image, by its disparity; no DATA

Beside each value stands what guesses at random reach. MODEL is a model folder or a name on the Hub, of this project or
any other whose `last_hidden_state` has the regions, or `timm:` and the name of a model of timm. DATA is as for
`knn.py`, but needs no labels. With `--output` there are a table (.md) and pictures (.png, -curves.png) beside the JSON
file, and the same command continues a stopped one.
"""

import argparse
from pathlib import Path
from typing import Any

from modeling_esvit.programs.packages import exit_without_package


with exit_without_package("pip install -e '.[training]'"):
    from matplotlib.figure import Figure

from modeling_esvit.embed.compiling import add_compile_argument
from modeling_esvit.images.decoding_arguments import read_decoding_arguments
from modeling_esvit.images.devices import open_device
from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.paths import parse_path
from training.data.left_out import warn_of_left_out
from training.data.named_data import open_named, split_data_name
from training.data.sources import ImageSource
from training.evaluation.arguments import add_image_arguments, add_reading_arguments, parse_and_check
from training.evaluation.opening import open_features_folder
from training.evaluation.results import CardValue, describe_data, format_table, write_result
from training.features.frozen_models import FrozenModel
from training.features.model_arguments import load_named_model
from training.figures.matching import draw_curves, draw_pairs
from training.matching.evaluation import choose_side, measure_source, measure_stereo, replace_nan
from training.matching.over_images import Measured, PairImages, RegionMatcher
from training.matching.pairs import MIRRORED, PAIRS
from training.matching.top_matches import find_top_matches, pick_images
from training.options.command import run_command
from training.options.url_secrets import parse_data
from training.state.figure_files import save_figure


STEREO = "stereo"
STEREO_DATA = "motorcycle, scikit-image"
TITLES = {
    "mirrored": "mirrored, recoloured, grey: ten most similar pairs",
    "crops": "random crops",
    "recoloured": "random crops, recoloured",
    "stereo": "stereo pair",
}


def parse_arguments() -> argparse.Namespace:
    parser = ProgramParser(__doc__, first="data output measures image_size batch_size workers device")
    add_reading_arguments(parser)
    add_compile_argument(parser)
    parser.add_argument(
        "--data", type=parse_data, metavar="DATA[:SPLIT]", help="images; needed for all measures but stereo"
    )
    add_image_arguments(parser)
    parser.add_argument("--measures", nargs="+", choices=(*PAIRS, STEREO), help="(default: all that there is data for)")
    parser.add_argument("--image_size", type=int, help="pixels a side of the views (default: those of the model)")
    parser.add_argument(
        "--stereo_size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the stereo views (default: about 1024 1536, whole regions)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of crops and colours (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=32, help="images a process (default: %(default)s)")
    parser.add_argument("--output", type=parse_path, help="a JSON file for the result; beside it, a table and pictures")
    arguments = parse_and_check(parser)
    arguments.measures = arguments.measures or ((*PAIRS, STEREO) if arguments.data else (STEREO,))
    if arguments.data is None and tuple(arguments.measures) != (STEREO,):
        parser.error("--data is missing: all measures but stereo need images")
    sizes = [size for size in (arguments.image_size, *(arguments.stereo_size or ())) if size is not None]
    if min(sizes, default=1) < 1:
        parser.error(f"--image_size and --stereo_size must be at least 1, got {min(sizes)}")
    return arguments


def draw_picture(model: FrozenModel, source: ImageSource, measured: Measured) -> Figure:
    """Draws the top matches in a few images."""
    loaded = pick_images(PairImages(source, measured))
    kinds = zip(measured.pairs, zip(*(image.pixels for image in loaded), strict=True), strict=True)
    matcher = RegionMatcher(model, measured.side)
    return draw_pairs(
        {TITLES[name]: [find_top_matches(name, pair, matcher) for pair in pairs] for name, pairs in kinds}
    )


def open_images(arguments: argparse.Namespace, model: FrozenModel) -> tuple[ImageSource, Measured]:
    name, split = split_data_name(arguments.data)
    place = {"image_column": arguments.image_column, "config_name": arguments.config_name}
    decoding = read_decoding_arguments(arguments)
    source = open_named(name, split, streaming=arguments.streaming, decoding=decoding, **place)
    pairs = tuple(measure for measure in arguments.measures if measure in PAIRS)
    return source, Measured(pairs, choose_side(model, arguments.image_size), arguments.seed, arguments.batch_size)


def render_table(result: dict[str, Any]) -> str:
    """Writes the result as Markdown."""
    lines = []
    if "images" in result:
        height, width = result["grid"]
        lines += [f"{result['images']} images of {result['image_size']} px, {height} x {width} regions.", ""]
    rows = make_mirrored_rows(result[MIRRORED]) if MIRRORED in result else []
    for name in list_position_measures(result):
        rows += list_position_rows(name, result[name])
    return "\n".join([*lines, *format_table(["measure", "", "at random", "best possible"], rows)])


def list_position_measures(result: dict[str, Any]) -> list[str]:
    """Returns the measures in a result whose truth is a position."""
    return [name for name in TITLES if name in result and name != MIRRORED]


def format_value(value: float | None, form: str) -> str:
    return "none" if value is None else format(value, form)


def make_mirrored_rows(result: dict[str, float | None]) -> list[list[str]]:
    right, chance = (format_value(result[name], ".1%") for name in ("accuracy", "chance_accuracy"))
    distance, chance_distance = (format_value(result[name], ".1f") for name in ("distance", "chance_distance"))
    return [
        ["mirrored: right, of the ten most similar", right, chance, "100%"],
        ["mirrored: distance from the truth, px", distance, chance_distance, "0"],
        ["mirrored: eleventh similarity", format_value(result["next_similarity"], ".3f"), "", ""],
        ["mirrored: regions that are the match of any", format_value(result["distinct"], ".1%"), "", "100%"],
    ]


def list_position_rows(name: str, result: dict[str, float | None]) -> list[list[str]]:
    def row(what: str, key: str, form: str) -> list[str]:
        return [
            f"{name}: {what}",
            *(format_value(result[f"{guess}{key}"], form) for guess in ("", "chance_", "nearest_")),
        ]

    return [
        row("within one region", "within_one", ".1%"),
        row("exactly", "exact", ".1%"),
        row("distance from the truth, px", "error", ".1f"),
        *(row(f"within {alpha:.0%} of the view", f"pck_{alpha:g}", ".1%") for alpha in (0.05, 0.1, 0.2)),
    ]


def make_values(result: dict[str, Any]) -> list[CardValue]:
    """Returns the values for a model card: what the paper reports, or for other measures matches within one region."""
    found = {name: result[name]["within_one"] for name in list_position_measures(result)}
    if MIRRORED in result:
        found[MIRRORED] = result[MIRRORED]["accuracy"]
    measured = {name: value for name, value in found.items() if value is not None}
    data = {name: (STEREO_DATA, None) if name == STEREO else describe_data(result["data"]) for name in measured}
    return [
        CardValue(f"region correspondence, {name}", value, "accuracy", *data[name], task="image-feature-extraction")
        for name, value in measured.items()
    ]


def write_curves(result: dict[str, Any], output: Path) -> None:
    """Draws beside `output` how far matches are from the truth."""
    if list_position_measures(result):
        curves = draw_curves({TITLES[name]: result[name] for name in list_position_measures(result)})
        save_figure(curves, output.with_name(f"{output.stem}-curves.png"))


def correspondence_command() -> None:
    arguments = parse_arguments()
    state = open_device(arguments.device)
    model = load_named_model(arguments)
    result: dict[str, Any] = {name: getattr(arguments, name) for name in ("model", "data", "seed")}
    output, title = arguments.output, f"Correspondences of {arguments.model}"
    images, parts = None, None
    if arguments.data is not None:
        images = open_images(arguments, model)
        with open_features_folder(None) as temporary:
            found, parts = measure_source(model, *images, output or temporary / "scores", arguments.workers)
        result |= found
    if state.is_main_process:
        if STEREO in arguments.measures:
            result[STEREO] = replace_nan(measure_stereo(model, arguments.stereo_size and tuple(arguments.stereo_size)))
        write_result(result, title, render_table(result), output, make_values(result))
        if output is not None:
            write_curves(result, output)
        if output is not None and images is not None and parts is not None:
            save_figure(draw_picture(model, *images), output.with_suffix(".png"))
            parts.delete()
        if images is not None:
            warn_of_left_out(arguments.data, images[0])
    state.destroy_process_group()


if __name__ == "__main__":
    run_command(correspondence_command)
