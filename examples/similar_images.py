# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the images of a collection that look like yours.

    python examples/similar_images.py MODEL photographs/ --query mine.jpg
    python examples/similar_images.py MODEL photographs/ --query mine.jpg other.jpg --features kept.parquet --count 8

The program embeds the collection (a folder, a glob, a data set: see `python -m modeling_esvit.embed --help`) and the
queries, builds a FAISS index with `datasets`, prints the most similar images for each query, and draws the first of
them for the first queries. A query that lies in the collection is no neighbour of itself. `--features` names a file
that `modeling_esvit.embed` wrote of the same collection and model, or where the features are kept for the next search.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import numpy as np
from PIL import Image

from modeling_esvit.images.decoding import DEFAULT, DecodingOptions, decode
from modeling_esvit.images.decoding_arguments import add_decoding_arguments, read_decoding_arguments
from modeling_esvit.programs.packages import exit_without_package
from modeling_esvit.programs.parser import ProgramParser, check_counts
from modeling_esvit.storage.paths import is_same_place, parse_name, parse_path


with exit_without_package():
    import datasets
    import faiss
    from matplotlib.figure import Figure

    from modeling_esvit.embed.embedder import Embedder, Features, embed
    from modeling_esvit.embed.files import check_output
    from modeling_esvit.embed.inputs import find_images
    from modeling_esvit.embed.reuse import embed_or_reuse

from training.features.single_image import check_picture
from training.options.command import run_command
from training.state.figure_files import DRAWN, name_drawn, save_figure, shorten_name


FEATURES = (
    "the file of features that embed wrote of this collection with this model (.parquet, .npz, .safetensors); if there "
    "is none yet, it is written for the next search"
)


def normalise(features: np.ndarray) -> np.ndarray:
    """Scales the rows of `[N, C]` to length 1, so that their inner products are cosines."""
    features = features.astype(np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def make_index(features: Features) -> datasets.Dataset:
    """Makes a data set of `name` and `view` that is searchable by cosine similarity."""
    rows = datasets.Dataset.from_dict({"name": features.names, "view": normalise(features.view)})
    with hide_bars():
        return rows.add_faiss_index("view", metric_type=faiss.METRIC_INNER_PRODUCT)


@contextmanager
def hide_bars() -> Iterator[None]:
    """Hides the bars of `datasets`, which do not say what they count."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def search(index: datasets.Dataset, queries: Features, count: int) -> list[list[tuple[float, str]]]:
    """Finds the `count` most similar images of each query, as (cosine similarity, name), the most similar first.

    A query that lies in the collection is no neighbour of itself; a copy of it under another name is one.
    """
    found = index.get_nearest_examples_batch("view", normalise(queries.view), k=min(count + 1, len(index)))
    return [
        [pair for pair in zip(scores.tolist(), rows["name"], strict=True) if not is_same_place(pair[1], query)][:count]
        for query, scores, rows in zip(queries.names, found.total_scores, found.total_examples, strict=True)
    ]


def draw(queries: list[str], found: list[list[tuple[float, str]]], images: dict[str, Image.Image]) -> Figure:
    """Draws a row for each query: the query, then the images found, each with its cosine above and its name below."""
    columns = 1 + max(map(len, found))
    figure = Figure(figsize=(2.2 * columns, 0.6 + 2.7 * len(queries)), layout="constrained")
    grid = figure.subplots(len(queries), columns, squeeze=False)
    for row, query, similar in zip(grid, queries, found, strict=True):
        for axes in row:
            axes.axis("off")
        shown = [("query", query), *((f"cosine {score:.3f}", name) for score, name in similar)]
        for axes, (title, name) in zip(row, shown, strict=False):
            axes.axis("on")
            axes.imshow(images[name])
            axes.set(xticks=[], yticks=[])
            axes.set_title(title, fontsize=10, fontweight="bold" if title == "query" else "normal")
            axes.set_xlabel(shorten_name(name), fontsize=8)
    figure.suptitle(
        "Each query and the images most similar to it, the most similar first.\n"
        "A good model finds images that show the same kind of thing.",
        fontsize=11,
    )
    return figure


def read_thumbnails(inputs: list[str], names: set[str], decoding: DecodingOptions = DEFAULT) -> dict[str, Image.Image]:
    """Reads small versions of those images of `inputs` that are in `names`."""
    images = find_images(inputs, options=decoding)
    pictures = {}
    for index in range(len(images)):
        if images.name(index) in names:
            picture = decode(images.read(index))
            picture.thumbnail((256, 256))
            pictures[images.name(index)] = picture
    return pictures


def main(arguments: list[str] | None = None) -> None:
    parser = ProgramParser(__doc__)
    parser.add_argument("model", type=parse_name, help="a model folder or the name of a model on the Hub")
    parser.add_argument(
        "collection", type=parse_name, nargs="+", help="images to search in: folders, files, globs, URLs, data sets"
    )
    parser.add_argument(
        "--query", type=parse_name, nargs="+", required=True, help="images to search for, named in the same way"
    )
    parser.add_argument("--count", type=int, default=5, help="images to find for each query (default: %(default)s)")
    parser.add_argument("--features", type=parse_path, help=FEATURES)
    parser.add_argument(
        "--output", type=parse_path, default=Path("similar.png"), help="the picture (default: %(default)s)"
    )
    add_decoding_arguments(parser)
    options = parser.parse_args(arguments)
    check_counts(parser, options, "count")
    check_picture(parser, options.output, [*options.collection, *options.query])
    if options.features is not None:
        check_output(options.features, overwrite=True)
    embedder, decoding = Embedder.from_pretrained(options.model), read_decoding_arguments(options)
    collection = find_images(options.collection, options=decoding)
    index = make_index(embed_or_reuse(embedder, collection, options.features, decoding))
    queries = embed(embedder, options.query, decoding=decoding)
    found = search(index, queries, options.count)
    for query, similar in zip(queries.names, found, strict=True):
        print(query, *(f"  {similarity:.3f}  {name}" for similarity, name in similar), sep="\n")
    numbers = {"queries": len(found), "similar images": max(map(len, found))}
    drawn, found = queries.names[:DRAWN], [similar[:DRAWN] for similar in found[:DRAWN]]
    names = {*drawn, *(name for similar in found for _, name in similar)}
    picture = draw(drawn, found, read_thumbnails([*options.collection, *options.query], names, decoding))
    save_figure(picture, options.output)
    print(name_drawn(options.output, DRAWN, numbers))


if __name__ == "__main__":
    run_command(main)
