# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the features of images into one file.

    python -m modeling_esvit.embed org/esvit-swin-b photographs/ --output features.parquet
    python -m modeling_esvit.embed runs/mine/teacher "holiday/*.jpg" urls.txt --output features.npz --regions
    accelerate launch --num_processes 8 -m modeling_esvit.embed MODEL my/dataset:test --output features.safetensors

MODEL is a model folder or a name on the Hub, of this project or any other whose model has a `pooler_output`. A call
that was stopped goes on when it is repeated, also with another number of processes, if the images are still the same.
Images that cannot be read are left out and listed in OUTPUT.unreadable.txt; the exit code stays 0 as long as one can be
read.
"""

import argparse

from modeling_esvit.embed.compiling import add_compile_argument
from modeling_esvit.embed.embedder import Embedder, embed_to_file
from modeling_esvit.embed.files import FORMATS, check_output
from modeling_esvit.embed.inputs import find_images
from modeling_esvit.embed.repeats import describe_repeated
from modeling_esvit.images.decoding_arguments import add_decoding_arguments, read_decoding_arguments
from modeling_esvit.images.devices import DeviceError, check_device, open_device
from modeling_esvit.images.names import show_name
from modeling_esvit.images.precision import AUTO, add_dtype_argument, name_dtype, resolve_dtype
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.parser import ProgramParser, check_counts
from modeling_esvit.storage.paths import parse_name, parse_path


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = ProgramParser(
        __doc__,
        first="regions batch_size workers dtype device compile image_size image_column overwrite",
        prog="python -m modeling_esvit.embed",
    )
    parser.add_argument(
        "model", type=parse_name, metavar="MODEL", help="a model folder, or the name of a model on the Hub"
    )
    parser.add_argument(
        "images",
        type=parse_name,
        nargs="+",
        metavar="IMAGES",
        help="folders, files, globs, URLs, text files of paths and URLs (.txt), or data sets, NAME or NAME:SPLIT",
    )
    parser.add_argument(
        "--output", type=parse_path, required=True, help=f"the file; its suffix is one of {' '.join(FORMATS)}"
    )
    parser.add_argument("--regions", action="store_true", help="write the features of all regions, too")
    parser.add_argument("--image_column", help="column of the images, in data sets that have several")
    parser.add_argument("--config_name", help="configuration of data sets on the Hub that have several")
    add_decoding_arguments(parser)
    parser.add_argument("--image_size", type=int, help="pixels a side, instead of the size the model was made for")
    parser.add_argument("--batch_size", type=int, default=64, help="images in a batch of each process")
    parser.add_argument("--part_size", type=int, default=512, help="images between two saves")
    parser.add_argument("--workers", type=int, default=8, help="threads of each process that read images")
    parser.add_argument("--device", help="where the model runs (default: an accelerator if there is one)")
    add_dtype_argument(parser)
    add_compile_argument(parser)
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that comes with the model")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an output that exists, and begin anew where the parts of a stopped call are of other data",
    )
    parsed = parser.parse_args(arguments)
    check_counts(parser, parsed, "batch_size", "part_size", "workers", "image_size")
    try:
        check_device(parsed.device)
    except DeviceError as error:
        parser.error(str(error))
    return parsed


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    with exit_with_message():
        run(options)


def run(options: argparse.Namespace) -> None:
    state = open_device(options.device)
    device = options.device or state.device
    dtype = resolve_dtype(options.dtype, device)
    if options.dtype == AUTO and state.is_main_process:
        print(f"Computes in {name_dtype(dtype)} on {device}.")
    check_output(options.output, options.overwrite)
    decoding = read_decoding_arguments(options)
    images = find_images(options.images, options.image_column, decoding, options.config_name)
    if images.left_out and state.is_main_process:
        print(f"Not read: {images.left_out.describe()}.")
    if state.is_main_process and (repeated := describe_repeated(images)):
        print(repeated)
    embedder = Embedder.from_pretrained(
        options.model,
        device=device,
        dtype=dtype,
        compile=options.compile,
        image_size=options.image_size,
        revision=options.revision,
        trust_remote_code=options.trust_remote_code,
    )
    named = {name: getattr(options, name) for name in ("model", "revision", "images", "image_size")}
    named["images"] = [*map(show_name, options.images)]
    named |= {} if options.config_name is None else {"config_name": options.config_name}
    embed_to_file(
        embedder,
        images,
        options.output,
        settings=named | decoding.describe() | embedder.describe() | {"dtype": name_dtype(dtype)},
        regions=options.regions,
        batch_size=options.batch_size,
        num_threads=options.workers,
        part_size=options.part_size,
        overwrite=options.overwrite,
    )
