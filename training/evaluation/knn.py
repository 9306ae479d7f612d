# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Classifies images by their nearest neighbours: the weighted k-NN classifier of DINO and EsViT."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn import functional as F

from modeling_esvit.embed.progress import show_progress
from modeling_esvit.errors import EsViTError
from modeling_esvit.matmul_precision import exact_float32
from training.data.sources import ImageSource
from training.evaluation.comparison import find_chance
from training.evaluation.scores import NO_CLASS, TOP_K, align_labels, score_top_k
from training.features.bank import FeatureBank
from training.features.extraction import Transform, extract_readable_features


TEMPERATURE = 0.07
DEFAULT_K = (10, 20, 100, 200)
BANK_CHUNK, QUERY_CHUNK = 4096, 512  # training and test images that are compared at a time
QUERY_CHUNKS = 64  # chunks of queries for each pass over the bank
# Subtracted for each position in the bank. Far below the rounding of a float32 similarity, so it only breaks ties.
TIE_BREAK = 1e-15


class NeighbourCountError(EsViTError, ValueError):
    """Raised when k is not between 1 and the number of training images."""


class TemperatureError(EsViTError, ValueError):
    """Raised when the temperature of the votes is not positive."""


class Neighbours:
    """Holds the k rows of a bank that are nearest to each query by cosine, among the chunks seen so far.

    Args:
        queries: `[m, C]`.

    Attributes:
        similarity, rows: `[m, k]`, nearest first. The earlier of two equally similar rows comes first.
    """

    def __init__(self, queries: Tensor, k: int) -> None:
        self.queries, self.k = F.normalize(queries.float(), dim=1), k
        self.similarity = self.queries.new_empty(len(queries), 0, dtype=torch.float64)
        self.rows = torch.empty_like(self.similarity, dtype=torch.int64)

    def add_chunk(self, chunk: Tensor, start: int) -> None:
        """Compares the queries with normalised rows `[n, C]` of the bank, the first of which has the number `start`."""
        rows = torch.arange(start, start + len(chunk), device=chunk.device).expand(len(self.queries), -1)
        with exact_float32():
            products = self.queries @ chunk.T
        found = products.double() - rows.double() * TIE_BREAK
        similarity = torch.cat([self.similarity, found], dim=1)
        self.similarity, best = similarity.topk(min(self.k, similarity.shape[1]), dim=1)
        self.rows = torch.cat([self.rows, rows], dim=1).gather(1, best)


def find_nearest(queries: Sequence[Tensor], bank: Iterable[Tensor], k: int) -> list[tuple[Tensor, Tensor]]:
    """Returns similarities `[m, k]` and row numbers `[m, k]` of the nearest rows of the bank for each chunk of queries.

    Goes through the bank's chunks `[n, C]` once. `m * n` similarities exist at a time, on the queries' device.

    Args:
        queries: chunks `[m, C]`.
    """
    found, start = [Neighbours(chunk, k) for chunk in queries], 0
    for chunk in bank:
        rows = F.normalize(chunk.to(queries[0].device, torch.float32), dim=1)
        for neighbours in found:
            neighbours.add_chunk(rows, start)
        start += len(chunk)
    return [(neighbours.similarity.float(), neighbours.rows) for neighbours in found]  # float32 drops the tie break


def rank_classes(similarity: Tensor, labels: Tensor, num_classes: int, temperature: float) -> Tensor:
    """Ranks classes by the votes of neighbours `[m, k]`; returns `[m, 5]`, most votes first.

    A neighbour votes with `exp(similarity / temperature)`. Places after the last class with a vote are NO_CLASS. The
    lower of two classes with equal votes comes first.
    """
    relative = (similarity - similarity[:, :1]).double()  # to the nearest, so that no temperature overflows
    weights = (relative / temperature).exp()
    votes = weights.new_zeros(len(weights), num_classes).scatter_add_(1, labels, weights)
    votes, ranking = votes.sort(dim=1, descending=True, stable=True)
    ranking = ranking.where(votes > 0, NO_CLASS)[:, : max(TOP_K)]
    return F.pad(ranking, (0, max(TOP_K) - ranking.shape[1]), value=NO_CLASS)


def check_knn_options(k: Sequence[int], temperature: float, bank_size: int) -> None:
    """Checks the options of k-NN against the number of training images.

    Raises:
        NeighbourCountError: a k is not between 1 and `bank_size`, or there is none.
        TemperatureError: the temperature is not positive.
    """
    if not k or not all(1 <= count <= bank_size for count in k):
        raise NeighbourCountError(f"k is {list(k)}. Name numbers from 1 to {bank_size}, the number of training images.")
    check_temperature(temperature)


def check_temperature(temperature: float) -> None:
    """Checks the temperature of the votes.

    Raises:
        TemperatureError: it is not positive and finite.
    """
    if not 0 < temperature < math.inf:
        raise TemperatureError(f"temperature is {temperature}, but must be positive and finite.")


@torch.no_grad()
def knn_predict(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    *,
    k: Sequence[int],
    num_classes: int,
    temperature: float = TEMPERATURE,
    chunk_size: int = QUERY_CHUNK,
    device: torch.device | str | None = None,
) -> dict[int, Tensor]:
    """Classifies L2-normalised features by weighted k-NN (Wu et al., arXiv 1805.01978, section 3.4).

    Args:
        train_features, train_labels: the bank, `[N, C]` and `[N]` in 0 .. num_classes - 1.
        test_features: `[M, C]`. `chunk_size` of them are classified at a time, so memory does not depend on M.
        k: one or more numbers of neighbours, all computed in one pass.
        temperature: similarities are divided by it before the exponential.
        device: where to compute. The device of `test_features` if None.

    Returns:
        The five classes with most votes for each k, `[M, 5]` on the CPU, best first. If fewer classes have a vote, -1
        fills the rest: a class without a neighbour is never predicted.

    Raises:
        NeighbourCountError: a k is not between 1 and N, or there is none.
        TemperatureError: the temperature is not positive.
    """
    device = test_features.device if device is None else device
    votes = Votes(list(k), num_classes, temperature, device)
    votes.check(len(train_features))
    bank = train_features.split(BANK_CHUNK)
    rankings = [votes.rank([chunk], bank, train_labels)[0] for chunk in test_features.split(chunk_size)]
    return {count: torch.cat([ranking[count] for ranking in rankings]) for count in k}


@dataclass(frozen=True)
class Votes:
    """Holds the rules of the vote, which `knn_predict` describes."""

    k: list[int]
    num_classes: int
    temperature: float
    device: torch.device | str

    def check(self, bank_size: int) -> None:
        check_knn_options(self.k, self.temperature, bank_size)

    @torch.no_grad()
    def rank(self, queries: Sequence[Tensor], bank: Iterable[Tensor], bank_labels: Tensor) -> list[dict[int, Tensor]]:
        """Ranks the classes of each chunk of queries for each k, in one pass over the bank."""
        queries = [chunk.to(self.device) for chunk in queries]
        labels = bank_labels.to(self.device)
        return [
            {
                k: rank_classes(similarity[:, :k], labels[rows[:, :k]], self.num_classes, self.temperature).cpu()
                for k in self.k
            }
            for similarity, rows in find_nearest(queries, bank, max(self.k))
        ]


def share_rankings(
    votes: Votes, queries: Sequence[Tensor], bank: Iterable[Tensor], bank_labels: Tensor
) -> dict[int, Tensor]:
    """Shares the chunks of queries among the processes; returns the rankings of all queries for each k on each.

    The chunks do not depend on the number of processes, so the result has the same bits for any number. A process takes
    QUERY_CHUNKS chunks at a time, so that memory does not depend on the number of queries.
    """
    state = PartialState()
    mine = range(len(queries))[state.process_index :: state.num_processes]
    found = list[tuple[int, dict[int, Tensor]]]()
    # A bar of one round would say nothing until it is over.
    shown = state.is_main_process and len(mine) > QUERY_CHUNKS
    with show_progress("nearest neighbours", len(mine), "chunk", shown=shown, leave=False) as bar:
        for first in range(0, len(mine), QUERY_CHUNKS):
            numbers = mine[first : first + QUERY_CHUNKS]
            rankings = votes.rank([queries[number] for number in numbers], bank, bank_labels)
            found += zip(numbers, rankings, strict=True)
            bar.update(len(numbers))
    ordered = [ranking for _, ranking in sorted(gather_object(found), key=lambda each: each[0])]
    return {k: torch.cat([ranking[k] for ranking in ordered]) for k in votes.k}


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
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> dict[str, float]:
    """Classifies the images of `test` by their neighbours in `train`, in the view features of `model`.

    All processes must call it. They share the work, and each gets the result that a single process would get. The model
    and the random generators stay as they were, so it can run during training.

    Args:
        model: EsViTModel, or any model of transformers that gives `pooler_output` `[B, C]` for pixel values.
        transform: makes the pixel values of an image, such as `make_evaluation_transform`.
        train, test: labelled sources of any kind. A test image of a class that `train` lacks counts as wrong;
            `unknown_class_images` is the number of these.
        k: numbers of neighbours. If None, 10, 20, 100 and 200, as far as there are so many training images.
        num_workers: threads of each process that read and decode images.
        after_batch: called by all processes after each batch of images. Its exceptions end the evaluation.
        autocast: gives the context in which the model runs; neighbours are compared in float32 all the same.

    Returns:
        {"k20_top1": accuracy in 0..1, "k20_top5": ... (of six classes and more), "train_images": ...,
        "test_images": ..., "classes": ..., "unknown_class_images": ..., "chance": accuracy of the most frequent class}

    Raises:
        NeighbourCountError: a k is more than the training images.
        TemperatureError: the temperature is not positive.
        UnlabelledDataError, FeatureError, DataOptionError, EmptySourceError,
        TooManyUnreadableImagesError: the data or the model cannot be used.
    """
    k = choose_default_counts(len(train)) if k is None else k
    check_knn_options(k, temperature, len(train))
    options: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers}
    options |= {"after_batch": after_batch, "autocast": autocast}
    bank, bank_labels = extract_readable_features(model, train, transform, description="k-NN train", **options)
    queries, labels = extract_readable_features(model, test, transform, description="k-NN test", **options)
    named = FeaturesInMemory(bank, bank_labels, train.class_names)
    return classify_features(named, FeaturesInMemory(queries, labels, test.class_names), k, temperature, model.device)


def choose_default_counts(bank_size: int) -> list[int]:
    """Returns the default numbers of neighbours that the training images suffice for, or else all of these."""
    return [count for count in DEFAULT_K if count <= bank_size] or [bank_size]


class FeaturesInMemory(NamedTuple):
    """Holds features `[N, C]`, labels `[N]` and the names of classes in memory, with the interface of `FeatureBank`."""

    features: Tensor
    labels: Tensor
    class_names: list[str] | None

    def pieces(self, size: int) -> Sequence[Tensor]:
        return self.features.split(size)


def classify_features(
    bank: FeaturesInMemory | FeatureBank,
    queries: FeaturesInMemory | FeatureBank,
    k: Sequence[int],
    temperature: float,
    device: torch.device,
) -> dict[str, float]:
    """Classifies features that are already computed; returns the result that `evaluate_knn` describes."""
    check_knn_options(k, temperature, len(bank.labels))
    bank_labels, labels, num_classes = align_labels(bank.labels, queries.labels, bank.class_names, queries.class_names)
    where = device if device.type == "cuda" else "cpu"  # the votes are float64, which some devices lack
    votes = Votes(list(k), num_classes, temperature, where)
    rankings = share_rankings(votes, queries.pieces(QUERY_CHUNK), bank.pieces(BANK_CHUNK), bank_labels)
    result: dict[str, float] = {
        "train_images": len(bank_labels),
        "test_images": len(labels),
        "classes": num_classes,
        "unknown_class_images": int((labels == NO_CLASS).sum()),
        "chance": find_chance(bank_labels, labels),
    }
    for count, ranking in rankings.items():
        result |= {f"k{count}_{name}": score for name, score in score_top_k(ranking, labels, num_classes).items()}
    return result


def evaluate_banks(
    bank: FeatureBank, queries: FeatureBank, *, k: Sequence[int] | None, temperature: float, device: torch.device
) -> dict[str, float]:
    """Classifies features on disk; returns the result that `evaluate_knn` describes."""
    return classify_features(bank, queries, choose_default_counts(len(bank)) if k is None else k, temperature, device)
