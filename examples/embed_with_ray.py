# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Embeds the images of many machines' worth of work with Ray Data: actors hold the model, and take part after part.

    pip install -e ".[embed]" "ray[data]"
    python examples/embed_with_ray.py MODEL photographs/ --output features.parquet
    python examples/embed_with_ray.py MODEL "/shared/*/*.jpg" --output features.parquet --actors 8 --part_size 50000

Ray runs on this machine, or on the cluster of `RAY_ADDRESS`, all of whose machines see the images and the output. Each
actor computes parts of `--part_size` images, on a GPU of its own where there are any. Parts are kept beside the output
until all are there, so that the same command continues a stopped one. The result is that of `python -m
modeling_esvit.embed`. Rows of a data set go through `datasets.map` instead, see the README.
"""

import argparse
import os
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

from modeling_esvit.images.decoding import DecodingOptions
from modeling_esvit.images.decoding_arguments import add_decoding_arguments, read_decoding_arguments
from modeling_esvit.images.folders import FoundImages
from modeling_esvit.images.places import URL
from modeling_esvit.images.precision import add_dtype_argument, name_dtype, resolve_dtype
from modeling_esvit.programs.ending import exit_with_message
from modeling_esvit.programs.packages import exit_without_package
from modeling_esvit.programs.parser import ProgramParser, check_counts
from modeling_esvit.storage.paths import parse_name, parse_path


INSTALL = "pip install -e '.[embed]' 'ray[data]'"

with exit_without_package(INSTALL):
    from modeling_esvit.embed.embedder import Embedder, PartEmbedder
    from modeling_esvit.embed.files import check_output
    from modeling_esvit.embed.inputs import ImageFiles, ManyImages, NoImagesError, find_images
    from modeling_esvit.embed.parts import Parts, cut_rows, merge_parts


class PartActor:
    """Computes parts in a process of its own, which holds the model."""

    def __init__(self, model: str, dtype: str, parts: Parts, decoding: DecodingOptions, batch_size: int):
        self.embedder = Embedder.from_pretrained(model, dtype=dtype)
        self.parts, self.decoding, self.batch_size = parts, decoding, batch_size

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Writes the parts of a batch of rows `part` and `images`; returns their numbers."""
        for number, names in zip(batch["part"], batch["images"], strict=True):
            images = ImageFiles(FoundImages([os.fsdecode(name) for name in names]), self.decoding)
            maker = PartEmbedder(self.embedder, images, regions=False, batch_size=self.batch_size, num_threads=8)
            maker.expect(len(images))
            self.parts.write(int(number), maker.make_part(maker.read(range(len(images))), lambda count: None))
        return {"part": batch["part"]}


def find_files(inputs: list[str], decoding: DecodingOptions) -> ManyImages:
    """Finds the images of the inputs, by paths that hold on every machine.

    Raises:
        NoImagesError: an input is a data set, or names no image.
    """
    images = find_images([name if URL.match(name) else os.path.abspath(name) for name in inputs], options=decoding)
    for name, part in zip(inputs, images.parts, strict=True):
        if not isinstance(part, ImageFiles):
            raise NoImagesError(f"{name} is a data set: use dataset.map(embedder, batched=True, num_proc=...).")
    return images


def make_rows(images: ManyImages, rows: list[range], parts: Parts) -> list[dict[str, Any]]:
    """Returns a row for each missing part: its number, and the paths of its images, which may be of any bytes."""
    missing = [number for number in range(len(rows)) if not parts.is_done(number)]
    return [
        {"part": number, "images": [os.fsencode(str(images.read(row).image)) for row in rows[number]]}
        for number in missing
    ]


def import_ray() -> Any:
    """Imports Ray, which `--help` does without; ends the program in a line if it is not installed."""
    with exit_without_package(INSTALL):
        import ray
        import ray.data
    return ray


def compute_parts(ray: Any, rows: list[dict[str, Any]], actors: int, *arguments: Any) -> None:
    """Computes parts with so many actors, each made with `arguments`."""
    ray.init(ignore_reinit_error=True)
    options = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": 1}
    strategy = ray.data.ActorPoolStrategy(size=min(actors, len(rows)))
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    done = data.map_batches(PartActor, fn_constructor_args=arguments, batch_size=1, compute=strategy, **options)
    for _ in done.iter_rows():  # Ray computes what is asked for
        pass


def run(options: argparse.Namespace) -> None:
    ray = import_ray()
    check_output(options.output, options.overwrite)
    decoding, output = read_decoding_arguments(options), options.output.absolute()
    images = find_files(options.images, decoding)
    model = os.path.abspath(options.model) if os.path.isdir(options.model) else options.model
    dtype = name_dtype(resolve_dtype(options.dtype, "cpu"))
    settings = {"model": options.model, "dtype": dtype, "part_size": options.part_size, **decoding.describe()}
    settings |= Embedder.from_pretrained(model, device="cpu", dtype=dtype).describe()
    parts = Parts(output, settings, images.identify())
    parts.begin(anew=options.overwrite)
    rows = cut_rows(len(images), options.part_size)
    missing = make_rows(images, rows, parts)
    print(f"{len(missing)} of {len(rows)} parts are to be computed, {len(images)} images in all.")
    if missing:
        compute_parts(ray, missing, options.actors, model, dtype, parts, decoding, options.batch_size)
    unreadable = merge_parts(parts, len(rows), output)
    parts.delete()
    print(f"{len(images) - len(unreadable)} of {len(images)} images: {options.output}")


def main(arguments: list[str] | None = None) -> None:
    parser = ProgramParser(__doc__, first="actors part_size batch_size overwrite dtype")
    parser.add_argument("model", type=parse_name, metavar="MODEL", help="a model folder, or a name on the Hub")
    parser.add_argument(
        "images", type=parse_name, nargs="+", metavar="IMAGES", help="folders, files, globs, URLs, or lists (.txt)"
    )
    parser.add_argument("--output", type=parse_path, required=True, help="the file: .parquet, .npz or .safetensors")
    parser.add_argument("--actors", type=int, default=2, help="processes that hold the model (default: %(default)s)")
    parser.add_argument("--part_size", type=int, default=10_000, help="images between two saves (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=64, help="images in a batch of each actor")
    parser.add_argument("--overwrite", action="store_true", help="replace an output that exists, and begin anew")
    add_dtype_argument(parser)
    add_decoding_arguments(parser)
    options = parser.parse_args(arguments)
    check_counts(parser, options, "actors", "part_size", "batch_size")
    run(options)


if __name__ == "__main__":
    with exit_with_message():
        main()
