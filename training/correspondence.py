# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures whether the regions of a model find each other in two views of an image, as the EsViT paper does, and in two
ways with more truth in them.

    python training/correspondence.py MODEL --data photographs:test --output correspondence.json
    python training/correspondence.py MODEL --data imagenet:val --measures mirrored --streaming
    python training/correspondence.py runs/mine --data photographs --against untrained timm:NAME org/name
    torchrun --nproc_per_node 2 training/correspondence.py MODEL --data ...            # the same digits, shared work

    mirrored     the paper's (section 4.3): an image, and itself mirrored, recoloured and grey; of the ten most similar
                 pairs of regions those that are exactly right. On ImageNet it reports 95% for DINO (DeiT-S), 66% for
                 EsViT with the view task and 91% with both tasks.
    crops        two random crops and flips of an image: all regions whose true position lies in the other view
    recoloured   the same with the colours, blur and so on of the training
    stereo       the stereo pair that ships with scikit-image, by its disparity; no DATA

Beside each value stands what guesses at random reach. `--against` puts other models beside it, and by "untrained"
MODEL's own network with random weights. MODEL is a model folder or a name on the Hub, of this project or
any other whose `last_hidden_state` has the regions, or `timm:` and the name of a model of timm. DATA is as for
`knn.py`, but needs no labels. With `--output` there are a table with all values (.md) and pictures (.png, -curves.png)
beside the JSON file, and the same command continues a stopped one.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

from modeling_esvit.programs.packages import exit_without_package


with exit_without_package("pip install -e '.[training]'"):
    from accelerate import PartialState
    from matplotlib.figure import Figure

from modeling_esvit.embed.compiling import add_compile_argument
from modeling_esvit.images.decoding_arguments import read_decoding_arguments
from modeling_esvit.images.devices import open_device
from modeling_esvit.programs.parser import ProgramParser
from modeling_esvit.storage.paths import parse_path
from modeling_esvit.storage.url_secrets import parse_data
from training.data.left_out import repeat_left_out
from training.data.named_data import open_named, split_data_name
from training.data.sources import ImageSource
from training.evaluation.arguments import (
    add_comparison_argument,
    add_image_arguments,
    add_reading_arguments,
    parse_and_check,
)
from training.evaluation.correspondence_table import (
    list_position_measures,
    make_values,
    render_details,
    render_table,
)
from training.evaluation.opening import load_other, open_features_folder
from training.evaluation.result_files import check_beside
from training.evaluation.results import write_result
from training.features.frozen_models import UNTRAINED, FrozenModel, find_training_view, make_file_name
from training.features.model_arguments import load_named_model
from training.figures.matching import draw_curves, draw_pairs
from training.matching.evaluation import choose_side, measure_source, measure_stereo, replace_nan
from training.matching.over_images import Measured, MeasuredImages, PairImages, RegionMatcher
from training.matching.pairs import PAIRS
from training.matching.top_matches import PICTURED, TopMatches, find_top_matches, pick_images
from training.options.command import parse_seed, run_command
from training.state.figure_files import save_figure


STEREO = "stereo"
COMPARED = 2  # images in a picture of several models
CURVES = "-curves.png"
PICTURES = (".png", CURVES)  # what the names of pictures beside the result end in
TITLES = {
    "mirrored": "mirrored, recoloured, grey: ten most similar pairs",
    "crops": "random crops",
    "recoloured": "random crops, recoloured",
    "stereo": "stereo pair",
}


def parse_arguments() -> argparse.Namespace:
    parser = ProgramParser(__doc__, first="data against output measures image_size batch_size workers device")
    add_reading_arguments(parser)
    add_compile_argument(parser)
    parser.add_argument(
        "--data", type=parse_data, metavar="DATA[:SPLIT]", help="images; needed for all measures but stereo"
    )
    add_image_arguments(parser)
    add_comparison_argument(parser)
    parser.add_argument("--measures", nargs="+", choices=(*PAIRS, STEREO), help="(default: all that there is data for)")
    parser.add_argument(
        "--image_size", type=int, help="pixels a side of the views (default: those of the model, in whole regions)"
    )
    parser.add_argument(
        "--stereo_size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help="of the stereo views (default: about 1024 1536, whole regions)",
    )
    parser.add_argument("--seed", type=parse_seed, default=0, help="seed of crops and colours (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=32, help="images a process (default: %(default)s)")
    parser.add_argument("--output", type=parse_path, help="a JSON file for the result; beside it, a table and pictures")
    arguments = parse_and_check(parser)
    if arguments.output is not None:
        check_beside(arguments.output, PICTURES)
    arguments.measures = arguments.measures or ((*PAIRS, STEREO) if arguments.data else (STEREO,))
    if arguments.data is None and tuple(arguments.measures) != (STEREO,):
        parser.error("--data is missing: all measures but stereo need images")
    sizes = [size for size in (arguments.image_size, *(arguments.stereo_size or ())) if size is not None]
    if min(sizes, default=1) < 1:
        parser.error(f"--image_size and --stereo_size must be at least 1, got {min(sizes)}")
    return arguments


class Compared(NamedTuple):
    """Holds a model, and how its views of images are made; None without images."""

    model: FrozenModel
    measured: Measured | None


def open_images(arguments: argparse.Namespace) -> ImageSource:
    name, split = split_data_name(arguments.data)
    place = {"image_column": arguments.image_column, "config_name": arguments.config_name}
    decoding = read_decoding_arguments(arguments)
    return open_named(name, split, streaming=arguments.streaming, decoding=decoding, **place)


def choose_views(arguments: argparse.Namespace, name: str, model: FrozenModel) -> Compared:
    """Chooses the views for a model, and says if their size is not the model's own.

    Raises:
        DataOptionError, TokenPlacesError, FrozenModelError: see `choose_side` and `RegionMatcher`.
    """
    pairs = tuple(measure for measure in arguments.measures if measure in PAIRS)
    if not pairs:
        return Compared(model, None)
    side, own = choose_side(model, arguments.image_size), find_training_view(model)[0][0]
    if arguments.image_size is None and side != own:
        PartialState().print(
            f"{name}: views of {side} px, since its regions do not divide its own {own} px (--image_size)."
        )
    RegionMatcher(model, side)  # refuses a size before anything is measured
    return Compared(model, Measured(pairs, side, arguments.seed, arguments.batch_size))


def measure_model(
    arguments: argparse.Namespace, compared: Compared, source: ImageSource | None, output: Path
) -> tuple[dict[str, Any], MeasuredImages | None]:
    """Returns the results of all measures of a model, and what those of images are made of. All processes call it."""
    stereo, result, found = dict[str, Any](), dict[str, Any](), None
    if STEREO in arguments.measures and PartialState().is_main_process:  # first, since it refuses some sizes
        size = arguments.stereo_size and tuple(arguments.stereo_size)
        stereo[STEREO] = replace_nan(measure_stereo(compared.model, size))
    if source is not None and compared.measured is not None:
        result, found = measure_source(compared.model, source, compared.measured, output, arguments.workers)
    return result | stereo, found


def draw_picture(models: dict[str, Compared], source: ImageSource) -> Figure:
    """Draws the top matches in a few images: those of each model below each other."""
    found, count = dict[str, list[list[TopMatches]]](), PICTURED if len(models) == 1 else COMPARED
    for name, (model, measured) in models.items():
        assert measured is not None  # there are images
        matcher = RegionMatcher(model, measured.side)
        images = pick_images(PairImages(source, measured), count)
        found[name] = [
            [find_top_matches(kind, pair, matcher) for kind, pair in zip(measured.pairs, image.pixels, strict=True)]
            for image in images
        ]
    rows = [(name, row) for image in zip(*found.values(), strict=True) for name, row in zip(found, image, strict=True)]
    kinds = next(iter(models.values())).measured.pairs  # type: ignore[union-attr]
    columns = {TITLES[kind]: [row[number] for _, row in rows] for number, kind in enumerate(kinds)}
    return draw_pairs(columns, [name for name, _ in rows] if len(models) > 1 else [])


def write_curves(result: dict[str, Any], output: Path) -> None:
    """Draws beside `output` how far matches are from the truth."""
    if measures := list_position_measures(result):

        def name_measures(of: dict[str, Any]) -> dict[str, Any]:
            return {TITLES[name]: of[name] for name in measures}

        against = {name: name_measures(of) for name, of in result["against"].items()}
        name = result["model"] if against else "this model"
        save_figure(draw_curves(name_measures(result), name, against), output.with_name(f"{output.stem}{CURVES}"))


def write_results(
    result: dict[str, Any], arguments: argparse.Namespace, models: dict[str, Compared], source: ImageSource | None
) -> None:
    """Prints the table; writes the result, its tables and its pictures, if there is an output."""
    output, title = arguments.output, f"Correspondences of {arguments.model}"
    values, details = make_values(result, result["against"].get(UNTRAINED)), render_details(result)
    write_result(result, title, render_table(result), output, values, details=details, pictures=PICTURES)
    if output is None:
        print("All values and pictures are written by --output.")
        return
    write_curves(result, output)
    if source is not None and models[arguments.model].measured is not None:
        save_figure(draw_picture(models, source), output.with_suffix(".png"))


def correspondence_command() -> None:
    arguments = parse_arguments()
    state = open_device(arguments.device)
    loaded = {arguments.model: load_named_model(arguments)}
    loaded |= {name: load_other(arguments, name, None) for name in arguments.against}
    models = {name: choose_views(arguments, name, model) for name, model in loaded.items()}
    source = None if arguments.data is None else open_images(arguments)
    with open_features_folder(None) as temporary:
        output = arguments.output or temporary / "scores.json"
        outputs = [
            output.with_name(f"{output.stem}-{number}-{make_file_name(name)}") for number, name in enumerate(models)
        ]
        measured = {
            name: measure_model(arguments, compared, source, place)
            for (name, compared), place in zip(models.items(), outputs, strict=True)
        }
        if state.is_main_process:
            about = {name: getattr(arguments, name) for name in ("model", "data", "seed")}
            own, *others = (found for found, _ in measured.values())
            result = about | own | {"against": dict(zip(arguments.against, others, strict=True))}
            write_results(result, arguments, models, source)
            if source is not None:
                say_what_was_left_out(arguments.data, source, [images for _, images in measured.values()])
    state.destroy_process_group()


def say_what_was_left_out(data: str, source: ImageSource, measured: list[MeasuredImages | None]) -> None:
    """Says once what was not read for any of the models, and deletes the parts of finished measures."""
    found = [images for images in measured if images is not None]
    if found:
        repeat_left_out(data, source, found[0].skipped)
    for images in found:
        images.parts.delete()


if __name__ == "__main__":
    run_command(correspondence_command)
