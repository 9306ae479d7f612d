# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""How good are the view features of a model? The weighted k-nearest-neighbour classifier of DINO and EsViT.

    python training/knn.py MODEL --train photographs:train --test photographs:test --k 10 20 --output metrics.json
    torchrun --nproc_per_node 2 training/knn.py MODEL --train ... --test ...          # the same result, shared work

MODEL is a model folder or a name on the Hub. DATA is a folder with a subfolder a class, a folder or glob of parquet
files, a folder of `Dataset.save_to_disk` or the name of a data set on the Hub; `:split` names a split of a data set
("train" if none is named), or a subfolder of a folder of images.

Nothing is trained: each test image is given to the class whose training images are nearest to it.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather
from torch import Tensor
from torch.nn import functional as F

from image_sources import DataOptionError, EmptySourceError, ImageSource, open_source
from view_features import (
    NonFiniteFeatureError,
    NoViewFeatureError,
    Transform,
    UnlabelledDataError,
    evaluation_transform,
    process_batches,
    readable_features,
)


TEMPERATURE = 0.07
DEFAULT_K = (10, 20, 100, 200)
TOP_K = (1, 5)
METRIC = Path(__file__).parent / "metrics" / "top_k_accuracy"

NO_CLASS = -1  # in a ranking: nobody voted for more classes; as a label: not a class of the training data

BANK_CHUNK = 16384  # training images that a chunk of test images is compared with at a time
# Subtracted per position in the bank. Far below the rounding of a float32 similarity: it only decides between equals.
TIE_BREAK = 1e-15


class NeighbourCountError(ValueError):
    """k is not between 1 and the number of training images."""


class TemperatureError(ValueError):
    """The temperature of the votes is not positive."""


# What a user can put right; the command prints their message alone.
USER_ERRORS = (
    *(NeighbourCountError, TemperatureError, DataOptionError, EmptySourceError, UnlabelledDataError),
    *(NonFiniteFeatureError, NoViewFeatureError, OSError),
)


def nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k rows of `bank` [N, C] nearest to each of `queries` [m, C] by cosine, nearest first.

    Returns similarities [m, k] and row numbers [m, k]. The earlier of two equally similar rows comes first.
    About m * BANK_CHUNK similarities exist at a time; chunks of the bank are brought to the queries' device.
    """
    queries = F.normalize(queries, dim=1)
    similarity = queries.new_empty(len(queries), 0, dtype=torch.float64)
    neighbours = torch.empty_like(similarity, dtype=torch.int64)
    for start in range(0, len(bank), BANK_CHUNK):
        chunk = F.normalize(bank[start : start + BANK_CHUNK].to(queries), dim=1)
        rows = torch.arange(start, start + len(chunk), device=queries.device).expand(len(queries), -1)
        similarity = torch.cat([similarity, (queries @ chunk.T).double() - rows.double() * TIE_BREAK], dim=1)
        similarity, best = similarity.topk(min(k, similarity.shape[1]), dim=1)
        neighbours = torch.cat([neighbours, rows], dim=1).gather(1, best)
    return similarity.float(), neighbours  # which rounds the tie break away


def rank_classes(similarity: Tensor, labels: Tensor, num_classes: int, temperature: float) -> Tensor:
    """Classes by the votes of neighbours [m, k], most votes first: [m, 5]. A neighbour votes with exp(similarity / T).

    Places after the last class with a vote are NO_CLASS. Of two classes with equal votes the lower comes first.
    """
    weights = (
        (similarity - similarity[:, :1]).double() / temperature
    ).exp()  # relative to the nearest: finite for any T
    votes = weights.new_zeros(len(weights), num_classes).scatter_add_(1, labels, weights)
    votes, ranking = votes.sort(dim=1, descending=True, stable=True)
    ranking = ranking.where(votes > 0, NO_CLASS)[:, : max(TOP_K)]
    return F.pad(ranking, (0, max(TOP_K) - ranking.shape[1]), value=NO_CLASS)


def check_options(k: Sequence[int], temperature: float, bank_size: int) -> None:
    if not k or not all(1 <= count <= bank_size for count in k):
        raise NeighbourCountError(f"k is {list(k)}: name numbers from 1 to {bank_size}, the number of training images.")
    if not temperature > 0:
        raise TemperatureError(f"temperature is {temperature}; it must be positive.")


@torch.no_grad()
def knn_predict(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    *,
    k: Sequence[int],
    num_classes: int,
    temperature: float = TEMPERATURE,
    chunk_size: int = 512,
    device: torch.device | str | None = None,
) -> dict[int, Tensor]:
    """Weighted k-NN (Wu et al., arXiv 1805.01978, section 3.4) over L2-normalised features.

    Args:
        train_features, train_labels: the bank, [N, C] and [N] in 0 .. num_classes - 1.
        test_features: [M, C]. `chunk_size` of them are classified at a time; memory does not depend on M.
        k: one or more numbers of neighbours; all are computed in one pass.
        temperature: similarities are divided by it before the exponential.
        device: where to compute; that of `test_features` if None.

    Returns:
        For each k the five classes with most votes, [M, 5] on the CPU, best first. Where fewer classes have a vote, -1
        follows: a class that no neighbour belongs to is not predicted.

    Raises:
        NeighbourCountError: a k is not between 1 and N, or there is none.
        TemperatureError: it is not positive.
    """
    check_options(k, temperature, len(train_features))
    device = test_features.device if device is None else device
    rankings: dict[int, list[Tensor]] = {count: [] for count in k}
    for queries in test_features.float().split(chunk_size):
        similarity, neighbours = nearest(queries.to(device), train_features, max(k))
        labels = train_labels.to(device)[neighbours]
        for count in rankings:
            ranking = rank_classes(similarity[:, :count], labels[:, :count], num_classes, temperature)
            rankings[count].append(ranking.cpu())
    return {count: torch.cat(chunks) for count, chunks in rankings.items()}


def align_labels(
    train: Tensor, test: Tensor, train_names: list[str] | None, test_names: list[str] | None
) -> tuple[Tensor, Tensor, int]:
    """Numbers the classes of the training data 0 .. n-1; test images get the same numbers, or NO_CLASS.

    Classes are the same if their names are; where either data set has no names, if their numbers are.

    Returns:
        train labels [N], test labels [M], n.
    """
    if train_names is not None and test_names is not None:
        number = {name: index for index, name in enumerate(train_names)}
        test = torch.tensor([number.get(name, NO_CLASS) for name in test_names])[test]
    classes, train = train.unique(return_inverse=True)
    position = torch.searchsorted(classes, test).clamp(max=len(classes) - 1)
    return train, position.where(classes[position] == test, NO_CLASS), len(classes)


def shared_predictions(train_features: Tensor, train_labels: Tensor, test_features: Tensor, **options: Any) -> dict:
    """As `knn_predict`, each process classifying its share of the test images; all get all rankings."""
    state, count = PartialState(), len(test_features)
    rows = process_batches(count, -(-count // state.num_processes), state)[0]
    rankings = knn_predict(train_features, train_labels, test_features[rows], **options)
    return {k: gather(ranking.to(state.device)).cpu()[:count] for k, ranking in rankings.items()}


def evaluate_knn(
    model: Any,
    transform: Transform,
    train: ImageSource,
    test: ImageSource,
    *,
    k: Sequence[int] | None = None,
    temperature: float = TEMPERATURE,
    batch_size: int = 64,
    num_workers: int = 0,
    after_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Classifies the images of `test` by their neighbours in `train`, in the view features of `model`.

    To be called by all processes, which share the work and get the same result, that of one process. During training it
    leaves the model and the random generators as it found them.

    Args:
        model: gives `pooler_output` [B, C] for pixel values; EsViTModel, or any model of transformers that does.
        transform: see `evaluation_transform`.
        train, test: labelled sources that can be read by number. A test image of a class that `train` lacks is counted
            as wrong; `unknown_class_images` says how many there are.
        k: numbers of neighbours. If None, those of 10, 20, 100 and 200 that are not more than the training images.
        after_batch: called by all processes after each batch of images; what it raises ends the evaluation.

    Returns:
        {"k20_top1": accuracy in 0..1, "k20_top5": ..., "train_images": ..., "test_images": ..., "classes": ...,
        "unknown_class_images": ...}

    Raises:
        NeighbourCountError: a k is more than the training images (or none of the default ones fits).
        TemperatureError: it is not positive.
        UnlabelledDataError, NonFiniteFeatureError, NoViewFeatureError, DataOptionError, EmptySourceError,
        TooManyUnreadableImagesError: the data or the model cannot be used, see their descriptions.
    """
    import evaluate

    if k is None:
        k = [count for count in DEFAULT_K if count <= len(train)]
    check_options(k, temperature, len(train))
    options: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers, "after_batch": after_batch}
    bank, bank_labels = readable_features(model, train, transform, description="k-NN train", **options)
    queries, labels = readable_features(model, test, transform, description="k-NN test", **options)
    bank_labels, labels, num_classes = align_labels(bank_labels, labels, train.class_names, test.class_names)

    device = model.device if model.device.type == "cuda" else "cpu"  # the votes are float64, which not every device has
    settings = {"k": k, "num_classes": num_classes, "temperature": temperature, "device": device}
    rankings = shared_predictions(bank, bank_labels, queries, **settings)
    result: dict[str, float] = {
        "train_images": len(bank),
        "test_images": len(queries),
        "classes": num_classes,
        "unknown_class_images": int((labels == NO_CLASS).sum()),
    }
    metric = evaluate.load(str(METRIC), keep_in_memory=True)
    for count, ranking in rankings.items():
        scores = metric.compute(predictions=ranking.numpy(), references=labels.numpy(), top_k=TOP_K)
        result |= {f"k{count}_{name}": score for name, score in scores.items()}
    return result


def split_name(data: str) -> tuple[str, str | None]:
    """DATA or DATA:SPLIT -> DATA, SPLIT."""
    name, colon, split = data.rpartition(":")
    return (name, split) if colon and not os.path.exists(data) else (data, None)


def told_apart(train: str, test: str) -> list[tuple[str, str | None]]:
    """Data and split of DATA or DATA:SPLIT, refusing to test on the training data by an omission.

    Raises:
        DataOptionError: both are the same data, and not told apart by splits.
    """
    named = [split_name(train), split_name(test)]
    if named[0][0] == named[1][0] and (None in (named[0][1], named[1][1]) or named[0] == named[1]):
        raise DataOptionError(f"train {train!r} and test {test!r} are the same data: name a split of it for each.")
    return named


def print_table(result: dict[str, float]) -> None:
    print("{classes} classes, {train_images} training and {test_images} test images".format(**result))
    if result["unknown_class_images"]:
        print("{unknown_class_images} test images are of no training class and count as wrong".format(**result))
    print(f"{'k':>5}  top-1   top-5")
    for name in [name for name in result if name.endswith("_top1")]:
        count = name.removeprefix("k").removesuffix("_top1")
        print(f"{count:>5}  {result[name]:6.2%}  {result[f'k{count}_top5']:6.2%}")


def save_json(content: dict[str, Any], output: Path) -> None:
    """Writes under a temporary name and renames."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial_file = output.with_name(f".{output.name}.partial")
    partial_file.write_text(json.dumps(content, indent=2) + "\n")
    partial_file.replace(output)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="a model folder, or the name of a model on the Hub")
    parser.add_argument("--train", required=True, metavar="DATA[:SPLIT]", help="the labelled bank")
    parser.add_argument("--test", required=True, metavar="DATA[:SPLIT]", help="the labelled images to be classified")
    parser.add_argument(
        "--k", type=int, nargs="+", help="numbers of neighbours (default: of 10 20 100 200 those that fit)"
    )
    parser.add_argument("--temperature", type=float, default=TEMPERATURE, help="of the votes (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="images a process (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="decoding processes beside each process")
    parser.add_argument("--device", help="where the model runs (default: an accelerator if there is one)")
    parser.add_argument("--output", type=Path, help="a JSON file for the result")
    arguments = parser.parse_args()
    if arguments.batch_size < 1:
        parser.error(f"--batch-size must be at least 1, got {arguments.batch_size}")
    if arguments.output is not None and arguments.output.is_dir():
        parser.error(f"--output {arguments.output} is a folder; name a file in it")
    return arguments


def main() -> None:
    try:
        evaluate_command(parse_arguments())
    except USER_ERRORS as error:
        sys.exit(f"error: {error}")


def evaluate_command(arguments: argparse.Namespace) -> None:
    from transformers import AutoImageProcessor, AutoModel

    import modeling_esvit  # noqa: F401  (registers EsViT with the Auto classes)

    # Accelerate ignores torchrun's processes on a CPU unless told that there is nothing else.
    state = PartialState(cpu=arguments.device == "cpu" or not torch.accelerator.is_available())
    train, test = (open_source(data, split=split) for data, split in told_apart(arguments.train, arguments.test))
    result = evaluate_knn(
        AutoModel.from_pretrained(arguments.model).to(arguments.device or state.device),
        evaluation_transform(AutoImageProcessor.from_pretrained(arguments.model)),
        train,
        test,
        k=arguments.k,
        temperature=arguments.temperature,
        batch_size=arguments.batch_size,
        num_workers=arguments.workers,
    )
    if state.is_main_process:
        print_table(result)
        if arguments.output is not None:
            names = {name: getattr(arguments, name) for name in ("model", "train", "test", "temperature")}
            save_json(names | result, arguments.output)
    state.destroy_process_group()


if __name__ == "__main__":
    main()
