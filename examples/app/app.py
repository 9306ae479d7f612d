# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Serves a page to explore a model: matches between two images, colours of regions, attention, nearest photographs.

    python examples/app/app.py MODEL
    python examples/app/app.py MODEL --photographs my/photographs     # search in these
    python examples/app/app.py MODEL --photographs my/photographs --features features.parquet  # of embed

MODEL is a model folder or a name on the Hub. Without it, the environment variable MODEL names one, as on a Space (see
README.md beside this file). The page is at http://127.0.0.1:7860 unless `--port` names another port. It sends nothing
anywhere: it has no analytics, and no fonts or scripts of other hosts.

Visitors are served one after the other, and what they send is bounded, so that memory is. Their files are deleted.
"""

import argparse
import os
import sys


# `collection` and `explorer` lie beside this file, in a checkout as on a Space.
try:
    import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

    from PIL import Image

    from collection import DECODING, Bundled, Folder
    from explorer import LONGER_SIDE, Explorer
    from modeling_esvit.images.decoding_arguments import add_pixel_arguments, read_decoding_arguments
    from modeling_esvit.programs.ending import exit_with_message
    from modeling_esvit.programs.packages import exit_without_package
    from modeling_esvit.programs.parser import ProgramParser, check_counts
    from modeling_esvit.storage.paths import parse_name, parse_path
except ImportError as error:  # that of `embed` says itself what is missing
    needed = f"this needs the package {error.name}: pip install -e '.[app]'"
    sys.exit(f"error: {needed if error.name else error}")


KEPT_MINUTES = 30.0  # for which uploads and pictures stay on the disk


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = ProgramParser(__doc__)
    parser.add_argument(
        "model",
        type=parse_name,
        nargs="?",
        default=os.environ.get("MODEL"),
        help="folder or name on the Hub (or $MODEL)",
    )
    parser.add_argument(
        "--image_size", type=int, default=LONGER_SIDE, help="pixels of an image's longer side (default: %(default)s)"
    )
    parser.add_argument(
        "--photographs",
        type=parse_path,
        metavar="FOLDER",
        help="photographs to search in (default: those bundled with scikit-image)",
    )
    parser.add_argument(
        "--features",
        type=parse_path,
        metavar="FILE",
        help="features of --photographs that embed wrote with this model; if there are none yet, they are written",
    )
    parser.add_argument(
        "--keep",
        type=float,
        default=KEPT_MINUTES,
        metavar="MINUTES",
        help="how long uploads and pictures stay on the disk (default: %(default)g)",
    )
    parser.add_argument("--port", type=int, help="port of the page (default: 7860, or the next one that is free)")
    add_pixel_arguments(parser)
    parser.set_defaults(max_pixels=DECODING.max_pixels)
    options = parser.parse_args(arguments)
    if not options.model:
        parser.error("name a model, or set the environment variable MODEL")
    if options.features is not None and options.photographs is None:
        parser.error("--features is of the photographs in a folder: name it by --photographs")
    check_counts(parser, options, "image_size")
    if not 0 < options.keep < float("inf"):
        parser.error(f"--keep must be above 0, got {options.keep:g}")
    if options.port is not None and not 1 <= options.port <= 65535:
        parser.error(f"--port must be between 1 and 65535, got {options.port}")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    with exit_without_package("pip install -e '.[app]'"):  # `--help` does without gradio
        from page import build, launch
    decoding = read_decoding_arguments(options)
    chosen = options.photographs
    collection = Bundled() if chosen is None else Folder(chosen, decoding)
    explorer = Explorer(options.model, options.image_size, collection, options.features)
    explorer.see(Image.new("RGB", (64, 64)))
    explorer.index  # noqa: B018  (computed before a visitor waits for it)
    launch(build(options.model, explorer, options.keep, decoding), options.port)


if __name__ == "__main__":
    with exit_with_message():
        main()
