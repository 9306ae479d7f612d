# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""How good are the view features of a model? The weighted k-nearest-neighbour classifier of DINO and EsViT.

    python training/knn.py MODEL --train photographs:train --test photographs:test --k 10 20 --output metrics.json
    torchrun --nproc_per_node 2 training/knn.py MODEL --train ... --test ...          # the same result, shared work

MODEL is a model folder or a name on the Hub. DATA is a folder with a subfolder a class, a folder or glob of parquet files,
a folder of `Dataset.save_to_disk` or the name of a data set on the Hub; `:split` names a split of a data set, or a
subfolder of a folder of images.

Nothing is trained: each test image is given to the class whose training images are nearest to it.
"""

import argparse
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather
from image_decoding import UnreadableImageError, decode
from image_sources import DataOptionError, ImageSource, StreamSource, open_source
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from view_loader import SkipLog

logger = logging.getLogger(__name__)

TEMPERATURE = 0.07
DEFAULT_K = (10, 20, 100, 200)
TOP_K = (1, 5)
METRIC = Path(__file__).parent / "metrics" / "top_k_accuracy"

NO_CLASS = -1  # in a ranking: nobody voted for more classes; as a label: not a class of the training data
UNREADABLE = -2

BANK_CHUNK = 16384  # training images that a chunk of test images is compared with at a time
# Subtracted per position in the bank: less than float32 resolves between two similarities, yet it makes equal ones differ.
TIE_BREAK = 1e-15

Transform = Callable[[Image.Image], Tensor]  # RGB image -> float [3, H, W], the same size for every image


class NeighbourCountError(ValueError):
    """k is not between 1 and the number of training images."""


class UnlabelledDataError(ValueError):
    """An image has no label."""


class NonFiniteFeatureError(ValueError):
    """A model gave NaN or infinity for an image."""


class NoViewFeatureError(ValueError):
    """A model has no pooled output."""


def nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k rows of `bank` [N, C] nearest to each of `queries` [m, C] by cosine, nearest first.

    Returns similarities [m, k] (float64) and row numbers [m, k]. The earlier of two equally similar rows comes first. At
    most m * BANK_CHUNK similarities exist at a time; chunks of the bank are brought to the queries' device.
    """
    queries = F.normalize(queries, dim=1)
    similarity, neighbours = queries.new_empty(len(queries), 0, dtype=torch.float64), None
    for start in range(0, len(bank), BANK_CHUNK):
        chunk = F.normalize(bank[start : start + BANK_CHUNK].to(queries), dim=1)
        rows = torch.arange(start, start + len(chunk), device=queries.device)
        candidates = torch.cat([similarity, (queries @ chunk.T).double() - rows * TIE_BREAK], dim=1)
        numbers = rows.expand(len(queries), -1)
        numbers = numbers if neighbours is None else torch.cat([neighbours, numbers], dim=1)
        similarity, chosen = candidates.topk(min(k, candidates.shape[1]), dim=1)
        neighbours = numbers.gather(1, chosen)
    return similarity, neighbours


def rank_classes(similarity: Tensor, labels: Tensor, num_classes: int, temperature: float) -> Tensor:
    """Classes by the votes of neighbours [m, k], most votes first: [m, 5]. A neighbour votes with exp(similarity / T).

    Places after the last class with a vote are NO_CLASS. Of two classes with equal votes the lower comes first.
    """
    weights = ((similarity - similarity[:, :1]) / temperature).exp()  # relative to the nearest: finite for any T
    votes = weights.new_zeros(len(weights), num_classes).scatter_add_(1, labels, weights)
    votes, ranking = votes.sort(dim=1, descending=True, stable=True)
    ranking = ranking.where(votes > 0, NO_CLASS)[:, : max(TOP_K)]
    return F.pad(ranking, (0, max(TOP_K) - ranking.shape[1]), value=NO_CLASS)


def check_neighbour_counts(k: Sequence[int], bank_size: int) -> None:
    for count in k or [0]:
        if not 1 <= count <= bank_size:
            raise NeighbourCountError(f"k is {list(k)}; each must be between 1 and the {bank_size} training images")


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
    """Weighted k-NN (Wu et al., arXiv 1805.01978; arXiv 2106.09785, section 4.1) over L2-normalised features.

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
        NeighbourCountError: a k is not between 1 and N.
    """
    check_neighbour_counts(k, len(train_features))
    device = test_features.device if device is None else device
    rankings: dict[int, list[Tensor]] = {count: [] for count in k}
    for queries in test_features.float().split(chunk_size):
        similarity, neighbours = nearest(queries.to(device), train_features, max(k))
        labels = train_labels.to(device)[neighbours]
        for count in rankings:
            ranking = rank_classes(similarity[:, :count], labels[:, :count], num_classes, temperature)
            rankings[count].append(ranking.cpu())
    return {count: torch.cat(chunks) for count, chunks in rankings.items()}


class LabelledImages(Dataset[tuple[Tensor, int]]):
    """(pixel values, label) of the images of a source, in its order; label UNREADABLE, on a black image, if it is that.

    Raises:
        DataOptionError: the source is a stream, which cannot be read by number.
        UnlabelledDataError: the source, or (while reading) an image of it, has no label.
    """

    def __init__(self, source: ImageSource, transform: Transform) -> None:
        if isinstance(source, StreamSource):
            raise DataOptionError("k-NN reads images by their number, which a stream has not: open it without streaming.")
        if not source.has_labels:
            raise UnlabelledDataError("k-NN needs labels: a subfolder for each class, or a label column.")
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        record = self.source.read(index)
        if record.label is None or record.label < 0:
            raise UnlabelledDataError(f"{record.identity()} has no label (it is {record.label}); k-NN needs one for each.")
        try:
            return self.transform(decode(record)), record.label
        except UnreadableImageError:
            return self.transform(Image.new("RGB", (256, 256))), UNREADABLE


def process_batches(count: int, batch_size: int, state: PartialState) -> list[list[int]]:
    """This process's batches of indices in 0 .. count - 1.

    Step by step the batches of all processes, in order of rank, are the next indices: gathered rows are in order. All
    processes have batches of equal size, for which the last index is repeated at the very end.
    """
    batches = []
    for start in range(0, count, batch_size * state.num_processes):
        size = min(batch_size, -(-(count - start) // state.num_processes))
        first = start + state.process_index * size
        batches.append([min(index, count - 1) for index in range(first, first + size)])
    return batches


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; on leaving, every module is back in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()  # not inference_mode: a tensor that the model caches here must serve training as well
def extract_features(
    model: Any, images: Dataset[tuple[Tensor, int]], *, batch_size: int = 64, num_workers: int = 0, description: str = ""
) -> tuple[Tensor, Tensor]:
    """The view features (`pooler_output`) of all images, [N, C] float32, and their labels [N], on the CPU.

    Each process runs its share, and all get all rows in the order of `images`. The model runs on its device in its type;
    its modes and every random generator are left as they were.

    Raises:
        NoViewFeatureError: the model has no pooled output.
    """
    state = PartialState()
    batches = process_batches(len(images), batch_size, state)
    # A loader without a generator of its own would draw from the global one.
    loader = DataLoader(images, batch_sampler=batches, num_workers=num_workers, generator=torch.Generator())
    features, labels = [], []
    with evaluation_mode(model):
        for pixels, batch_labels in tqdm(loader, desc=description, leave=False, disable=not state.is_main_process):
            pooled = model(pixels.to(model.device, model.dtype)).pooler_output
            if pooled is None:
                raise NoViewFeatureError(f"{type(model).__name__} gives no pooler_output: choose a model that does.")
            features.append(gather(pooled.float()).cpu())
            labels.append(gather(batch_labels.to(model.device)).cpu())
    return torch.cat(features)[: len(images)], torch.cat(labels)[: len(images)]


def readable_features(model: Any, source: ImageSource, transform: Transform, **options: Any) -> tuple[Tensor, Tensor]:
    """As `extract_features`, without the unreadable images, which are named in the log.

    Raises:
        TooManyUnreadableImagesError: see `SkipLog`.
        NonFiniteFeatureError: names the first image whose feature is not finite.
    """
    features, labels = extract_features(model, LabelledImages(source, transform), **options)
    readable = labels != UNREADABLE
    skipped = SkipLog(len(source))
    for index in (~readable).nonzero()[:, 0].tolist():
        name = source.read(index).identity()
        skipped.add({name: name})
    if skipped.skipped and PartialState().is_main_process:
        logger.warning(skipped.summary())
    broken = (readable & ~features.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
    if broken:
        raise NonFiniteFeatureError(
            f"the model's feature of {source.read(broken[0]).identity()} is not finite, as of {len(broken)} of "
            f"{len(source)} images: its weights are broken, or overflow in {model.dtype}"
        )
    return features[readable], labels[readable]


def align_labels(train: Tensor, test: Tensor, train_names: list[str] | None, test_names: list[str] | None):
    """Numbers the classes of the training data 0 .. n-1 and gives test images the same numbers, NO_CLASS if they have none.

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

    Returns:
        {"k20_top1": accuracy in 0..1, "k20_top5": ..., "train_images": ..., "test_images": ..., "classes": ...,
        "unknown_class_images": ...}

    Raises:
        NeighbourCountError: a k is more than the training images (or none of the default ones fits).
        UnlabelledDataError, NonFiniteFeatureError, NoViewFeatureError, TooManyUnreadableImagesError: see there.
    """
    import evaluate

    if k is None:
        k = [count for count in DEFAULT_K if count <= len(train)]
    check_neighbour_counts(k, len(train))
    options = {"batch_size": batch_size, "num_workers": num_workers}
    bank, bank_labels = readable_features(model, train, transform, description="k-NN train", **options)
    queries, labels = readable_features(model, test, transform, description="k-NN test", **options)
    bank_labels, labels, num_classes = align_labels(bank_labels, labels, train.class_names, test.class_names)

    device = model.device if model.device.type == "cuda" else "cpu"  # the votes are float64, which not every device has
    settings = {"k": k, "num_classes": num_classes, "temperature": temperature, "device": device}
    rankings = shared_predictions(bank, bank_labels, queries, **settings)
    result = {
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


def _transform(image: Image.Image, processor: Any) -> Tensor:
    return processor(image, return_tensors="pt")["pixel_values"][0]


def evaluation_transform(processor: Any) -> Transform:
    """The transform that an image processor of transformers stands for."""
    return partial(_transform, processor=processor)


def open_labelled(data: str, default_split: str | None) -> ImageSource:
    """Opens DATA or DATA:SPLIT as `open_source` does."""
    name, colon, split = data.rpartition(":")
    if colon and not os.path.exists(data):
        return open_source(name, split=split)
    return open_source(data)
