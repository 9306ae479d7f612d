# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows which images are alike to a model: a map of their features, coloured by class, and a sheet of neighbours.

    python training/feature_maps.py MODEL --data photographs:test --output maps
    python training/feature_maps.py MODEL --data my/labelled --method umap --features features --output maps

The program writes `map.png`, `neighbours.png` and `map.json` (name, class, x and y of each image) into the folder.
MODEL is a model folder, a name on the Hub or timm:NAME, and DATA any labelled images, as for `knn.py`. With
`--features` a folder of features is used again and added to. The map is t-SNE of scikit-learn, or UMAP of umap-learn,
of features of length 1; its distances mean little beyond neighbourhood. Neighbours are by cosine, among all images:
those of the query's class have a green frame, others a red one.
"""

import argparse
import json
from typing import Any

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from modeling_esvit.embed.compiling import add_compile_argument
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding_arguments import add_decoding_arguments, read_decoding_arguments
from modeling_esvit.images.devices import open_device
from modeling_esvit.images.precision import add_dtype_argument
from modeling_esvit.programs.parser import ProgramParser, check_counts
from modeling_esvit.storage.atomic import write_text
from modeling_esvit.storage.paths import parse_path
from modeling_esvit.storage.url_secrets import parse_data
from training.data.left_out import repeat_left_out
from training.data.named_data import open_named, refuse_output_in_data, split_data_name
from training.data.sources import ImageSource
from training.evaluation.arguments import add_column_arguments, check_folder, choose_columns
from training.evaluation.knn import BANK_CHUNK, find_nearest
from training.evaluation.opening import open_features_folder
from training.features.bank import FeatureBank, make_bank
from training.features.extraction import LabelledImages
from training.features.model_arguments import add_model_arguments, load_named_model
from training.figures.feature_maps import draw_map, draw_neighbours, name_class
from training.options.command import parse_seed, run_command
from training.state.figure_files import save_figure


METHODS = ("tsne", "umap")
FEWEST = 4  # images that a map can be made of
MOST_ON_SHEET = 100  # images in a row or a column of neighbours
PERPLEXITY = 30  # about how many neighbours a point has, of t-SNE


class FeatureMapError(EsViTError, ValueError):
    """Raised when no map can be made: too few images, or a library is missing."""


def project(features: Tensor, method: str, seed: int) -> np.ndarray:
    """Projects `[N, C]` to points of a plane `[N, 2]`.

    Raises:
        FeatureMapError: fewer than four images, or umap-learn is missing.
    """
    if len(features) < FEWEST:
        raise FeatureMapError(f"a map needs at least {FEWEST} images; there are {len(features)}.")
    unit = F.normalize(features.float(), dim=1).numpy()
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(PERPLEXITY, (len(unit) - 1) / 3)
        return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(unit)
    try:
        import umap
    except ImportError as error:
        raise FeatureMapError("--method umap needs umap-learn: pip install umap-learn, or take tsne.") from error
    neighbours = min(15, len(unit) - 1)
    # Its spectral start needs more points than dimensions to solve for.
    start = "spectral" if len(unit) > 2 * neighbours else "random"
    return umap.UMAP(n_neighbors=neighbours, init=start, random_state=seed, n_jobs=1).fit_transform(unit)


def choose_rows(count: int, most: int, seed: int) -> Tensor:
    """Returns all rows, or `most` of them drawn by the seed, in order."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].sort().values


def choose_queries(labels: Tensor, count: int, seed: int) -> Tensor:
    """Draws up to `count` rows by the seed: one of each class, then a second one of each, and so on."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    seen: dict[int, int] = {}
    rounds = []
    for label in labels[order].tolist():
        seen[label] = seen.get(label, -1) + 1
        rounds.append(seen[label])
    return order[torch.tensor(rounds).argsort(stable=True)][:count]


def find_neighbours(bank: FeatureBank, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Finds the images nearest to each query, without the query: similarities and rows, `[Q, count]` each."""
    features = bank.features()
    ((similarity, rows),) = find_nearest([features[queries]], bank.pieces(BANK_CHUNK), min(count + 1, len(bank)))
    itself = rows == queries[:, None]
    itself[:, -1] |= ~itself.any(dim=1)  # not found among copies of it: then the last one is too many
    shape = (len(queries), rows.shape[1] - 1)
    return similarity[~itself].view(shape), rows[~itself].view(shape)


def make_maps(options: argparse.Namespace, bank: FeatureBank, source: ImageSource, images: LabelledImages) -> str:
    """Writes all files; returns what there is to say."""
    chosen = choose_rows(len(bank), options.images, options.seed)
    labels = bank.labels[chosen]
    points = project(bank.features()[chosen], options.method, options.seed)
    title = (
        f"{'t-SNE' if options.method == 'tsne' else 'UMAP'} of {options.model}\n{len(chosen)} images of {options.data}"
    )
    save_figure(draw_map(points, labels, bank, title), options.output / "map.png")
    rows = [
        {"name": bank.names[row], "class": name_class(bank, label), "x": float(x), "y": float(y)}
        for row, label, (x, y) in zip(chosen.tolist(), labels.tolist(), points, strict=True)
    ]
    write_text(options.output / "map.json", json.dumps(rows, indent=1) + "\n")
    queries = choose_queries(bank.labels, options.queries, options.seed)
    similarity, found = find_neighbours(bank, queries, options.neighbours)
    sheet = draw_neighbours(bank, images, queries, similarity, found)
    save_figure(sheet, options.output / "neighbours.png")
    same = (bank.labels[found] == bank.labels[queries][:, None]).float().mean().item()
    return f"{same:.0%} of the {found.shape[1]} nearest neighbours of {len(queries)} images are of their class"


def parse_arguments(arguments: list[str] | None) -> Any:
    parser = ProgramParser(__doc__, first="method images queries neighbours features label_column")
    add_model_arguments(parser)
    add_dtype_argument(parser)
    add_compile_argument(parser)
    add_decoding_arguments(parser)
    parser.add_argument("--data", type=parse_data, required=True, metavar="DATA[:SPLIT]", help="labelled images")
    parser.add_argument("--output", type=parse_path, required=True, help="the folder of the pictures")
    parser.add_argument("--method", choices=METHODS, default="tsne", help="how the map is made")
    parser.add_argument("--images", type=int, default=2000, help="images on the map, drawn at random if there are more")
    parser.add_argument("--queries", type=int, default=8, help="images whose neighbours the sheet shows")
    parser.add_argument("--neighbours", type=int, default=8, help="neighbours of each of them")
    parser.add_argument("--seed", type=parse_seed, default=0, help="seed of the images, the queries and the map")
    parser.add_argument("--features", type=parse_path, metavar="FOLDER", help="keep features here, to be used again")
    parser.add_argument("--batch_size", type=int, default=64, help="images in a batch")
    parser.add_argument("--workers", type=int, default=4, help="threads that read images (default: %(default)s)")
    add_column_arguments(parser)
    options = parser.parse_args(arguments)
    check_counts(parser, options, "images", "queries", "neighbours", "batch_size", "workers")
    if max(options.queries, options.neighbours) > MOST_ON_SHEET:
        given = f"{options.queries} and {options.neighbours}"
        parser.error(f"--queries and --neighbours can be {MOST_ON_SHEET} at most, the images of a sheet; got {given}")
    check_folder(parser, options.output)
    check_folder(parser, options.features, "--features")
    refuse_output_in_data(options.output, options.data)
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    state = open_device(options.device)
    options.output.mkdir(parents=True, exist_ok=True)
    data, split = split_data_name(options.data)
    source = open_named(data, split, decoding=read_decoding_arguments(options), **choose_columns(options))
    model = load_named_model(options)
    with open_features_folder(options.features) as folder:
        bank = make_bank(
            model, options.data, source, folder, batch_size=options.batch_size, num_threads=options.workers
        )
        if state.is_main_process:
            print(make_maps(options, bank, source, LabelledImages(source, model.transform)))
            print(f"{options.output / 'map.png'}\n{options.output / 'neighbours.png'}")
        repeat_left_out(options.data, source, bank.collect_unreadable(len(source)))
    state.destroy_process_group()


if __name__ == "__main__":
    run_command(main)
