# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the arguments that say how a command decodes images."""

import argparse
import math

from modeling_esvit.images.decoding import APPLY, IGNORE, MAX_PIXELS, DecodingOptions


HELP = {
    "exif_orientation": "apply turns images as their camera noted; ignore leaves them as the original code did.",
    "white_level": "Value that is white in images of 16 or 32 bits or float, such as 4095 for 12 bits in 16 "
    "(default: 65535, and 1 for float).",
    "max_pixels": "Pixels above which an image counts as unreadable; fewer for formats that take more memory.",
    "allow_paths": "Let the rows of a data set name any file and URL, not only files of the data set.",
}


def add_decoding_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds how images are decoded, and what the rows of data sets may open."""
    add_pixel_arguments(parser)
    parser.add_argument("--allow_paths", action="store_true", help=HELP["allow_paths"])


def add_pixel_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds how images are decoded, for programs that read image files and no data sets."""
    parser.add_argument(
        "--exif_orientation",
        choices=[APPLY, IGNORE],
        default=APPLY,
        help=HELP["exif_orientation"],
    )
    parser.add_argument("--white_level", type=parse_positive, metavar="X", help=HELP["white_level"])
    parser.add_argument("--max_pixels", type=parse_count, metavar="N", default=MAX_PIXELS, help=HELP["max_pixels"])


def read_decoding_arguments(arguments: argparse.Namespace) -> DecodingOptions:
    """Returns what the arguments of `add_decoding_arguments` or `add_pixel_arguments` say."""
    return DecodingOptions(**{name: getattr(arguments, name) for name in HELP if name in arguments})


def parse_positive(text: str) -> float:
    """Returns a positive and finite number.

    Raises:
        ArgumentTypeError: It is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def parse_count(text: str) -> int:
    """Returns a number from 1 on.

    Raises:
        ArgumentTypeError: It is none.
    """
    value = parse_positive(text)
    if not value.is_integer():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(value)
