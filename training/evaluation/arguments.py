# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the arguments that evaluation programs share, and checks them."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from modeling_esvit.embed.compiling import add_compile_argument
from modeling_esvit.images.decoding_arguments import add_decoding_arguments
from modeling_esvit.images.precision import add_dtype_argument
from modeling_esvit.programs.parser import check_counts
from modeling_esvit.storage.manifest import ForeignFilesError, check_replaceable
from modeling_esvit.storage.paths import describe_file_in_place, parse_name, parse_path
from modeling_esvit.storage.url_secrets import parse_data
from training.data.held_out import SHARE
from training.data.named_data import refuse_output_in_data, split_train_and_test
from training.evaluation.result_files import check_beside
from training.features.bank import PART_SIZE
from training.features.model_arguments import add_model_arguments


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the model, in what type it computes, and the options of reading images."""
    add_model_arguments(parser)
    add_dtype_argument(parser)
    add_decoding_arguments(parser)
    parser.add_argument("--streaming", action="store_true", help="read parquet files and Hub data sets as streams")
    parser.add_argument(
        "--workers", type=int, default=4, help="threads of each process that read images (default: %(default)s)"
    )


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the model, its training and test images, and the folder of features."""
    add_reading_arguments(parser)
    parser.add_argument(
        "--train", type=parse_data, required=True, metavar="DATA[:SPLIT]", help="the labelled images to learn from"
    )
    parser.add_argument(
        "--test",
        type=parse_data,
        metavar="DATA[:SPLIT]",
        help="the labelled images to classify (default: a share of each class of --train, which is held out of it)",
    )
    parser.add_argument(
        "--test_share",
        type=float,
        metavar="SHARE",
        help=f"share of each class of --train that is held out for testing, without --test (default: {SHARE})",
    )
    add_column_arguments(parser)
    parser.add_argument(
        "--features",
        type=parse_path,
        metavar="FOLDER",
        help="keep features here for further evaluations; all processes must see it (default: a temporary folder)",
    )
    add_bank_arguments(parser)


def add_column_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which columns of a data set hold images and labels, and which configuration of it is read."""
    parser.add_argument(
        "--label_column", help="column of the classes, or extension of labels in tar files (default: the only one)"
    )
    add_image_arguments(parser)


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which column of a data set holds images, and which configuration of it is read."""
    parser.add_argument(
        "--image_column", help="column of the images, or extension of images in tar files (default: the only one)"
    )
    parser.add_argument("--config_name", help="configuration of data sets on the Hub that have several")


def choose_columns(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what the arguments of `add_column_arguments` say, by the names of `open_source`."""
    return {name: getattr(arguments, name) for name in ("label_column", "image_column", "config_name")}


def add_bank_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds how a bank of features is made: compiled or not, and in parts of what size."""
    add_compile_argument(parser)
    parser.add_argument(
        "--part_size", type=int, default=PART_SIZE, help="images between two saves (default: %(default)s)"
    )


def add_feature_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the choice of features, and the file of the result."""
    parser.add_argument(
        "--n_last_blocks", type=int, help="use the features of this many last blocks instead of the view feature"
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        default=64,
        help="images in a batch of each process (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=parse_path,
        help="write the result to this JSON file, with a table (.md) and a picture (.png) beside it",
    )


def add_comparison_argument(parser: argparse.ArgumentParser) -> None:
    """Adds the models to compare with."""
    parser.add_argument(
        "--against",
        type=parse_name,
        nargs="+",
        default=[],
        metavar="MODEL",
        help="models to compare with: untrained (MODEL with random weights, by the same feature); timm:NAME, names on "
        "the Hub and folders, by their view features",
    )


def parse_and_check(parser: argparse.ArgumentParser, *, writes_file: bool = True) -> argparse.Namespace:
    """Parses the command line, and refuses impossible counts and an output file that cannot be written.

    `writes_file` is false of a program whose --output is a folder.

    Raises:
        DataOptionError: see `check_test` and `refuse_output_in_data`.
    """
    arguments = parser.parse_args()
    counts = (name for name in ("batch_size", "part_size", "workers") if hasattr(arguments, name))
    check_counts(parser, arguments, *counts)
    if isinstance(getattr(arguments, "against", None), list):  # transfer.py takes a single one
        check_others(parser, arguments)
    if hasattr(arguments, "test_share"):
        check_test(parser, arguments)
    check_folder(parser, getattr(arguments, "features", None), "--features")
    if hasattr(arguments, "output"):
        (check_output if writes_file else check_folder)(parser, arguments.output)
    if getattr(arguments, "output", None) is not None:
        named = [getattr(arguments, name, None) for name in ("train", "test", "data")]
        refuse_output_in_data(arguments.output, *(name for name in named if isinstance(name, str)))
    return arguments


def check_test(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuses test data that are the training data, and a share to hold out that is none; sets its default.

    Raises:
        DataOptionError: see `split_train_and_test`.
    """
    share = arguments.test_share
    if arguments.test is not None:
        if share is not None:
            parser.error("--test_share holds images of --train out for testing, and --test names others: give one.")
        split_train_and_test(arguments.train, arguments.test, "; or leave --test out, which holds out --test_share")
    elif share is not None and not 0 < share < 1:
        parser.error(f"--test_share must lie between 0 and 1, got {share}")
    else:
        arguments.test_share = SHARE if share is None else share


def check_others(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuses a model to compare with that is named twice, or is the model itself."""
    names = [arguments.model, *arguments.against]
    if repeated := [name for name in arguments.against if names.count(name) > 1]:
        parser.error(f"--against names {repeated[0]} twice, or as the model itself.")


def check_folder(parser: argparse.ArgumentParser, folder: Path | None, option: str = "--output") -> None:
    """Refuses a file where a folder has to be, before anything is computed."""
    if folder is not None and (problem := describe_file_in_place(folder)):
        parser.error(f"{option} {folder}: {problem}.")


def check_output(parser: argparse.ArgumentParser, output: Path | None, option: str = "--output") -> None:
    """Refuses an output that cannot be written, before anything is computed. Leaves nothing behind."""
    if output is None:
        return
    if output.is_dir():
        parser.error(f"{option} {output} is a folder. Name a file in it.")
    try:
        check_replaceable(output)
    except ForeignFilesError as error:
        parser.error(f"{option} {error}")
    if output.suffix in (".md", ".png"):
        parser.error(f"{option} {output} names the JSON file. Table (.md) and picture (.png) are written beside it.")
    try:
        check_beside(output)
    except ForeignFilesError as error:
        parser.error(f"{option} {output}: {error}")
    existing = next(folder for folder in output.absolute().parents if folder.exists())
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        parser.error(f"{option} {output}: nothing can be written in {existing} ({error.strerror}).")
