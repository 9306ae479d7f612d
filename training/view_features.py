# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The view features of a labelled source of images, with the work shared by all processes."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from image_sources import DataOptionError, DatasetSource, EmptySourceError, FolderSource, ImageSource
from modeling_esvit.image_decoding import UnreadableImageError, decode
from shard_stream import ShardStream
from view_loader import SkipLog


logger = logging.getLogger(__name__)

UNREADABLE = -2  # the label of an image that cannot be read

Transform = Callable[[Image.Image], Tensor]  # RGB image of any size -> float [3, H, W], always of one size


class UnlabelledDataError(ValueError):
    """An image has no label."""


class NonFiniteFeatureError(ValueError):
    """A model gave NaN or infinity for an image."""


class NoViewFeatureError(ValueError):
    """A model has no pooled output."""


def _transform(image: Image.Image, processor: Any) -> Tensor:
    return processor(image, return_tensors="pt")["pixel_values"][0]


def evaluation_transform(processor: Any) -> Transform:
    """The transform that an image processor of transformers stands for."""
    return partial(_transform, processor=processor)


class LabelledImages(Dataset[tuple[Tensor, int]]):
    """(pixel values, label) of each image of a source, in its order; for one that cannot be read, black and UNREADABLE.

    Raises:
        DataOptionError: the source is a stream, which cannot be read by number.
        UnlabelledDataError: the source, or (while reading) an image of it, has no label.
    """

    def __init__(self, source: ImageSource, transform: Transform) -> None:
        if isinstance(source, ShardStream):
            raise DataOptionError(
                "k-NN reads images by their number, which a stream has not: open it without streaming."
            )
        if not source.has_labels:
            raise UnlabelledDataError("k-NN needs labels: a subfolder for each class, or a label column.")
        self.source: FolderSource | DatasetSource = source
        self.transform = transform

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        return self.source.read(index).identity()

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        record = self.source.read(index)
        if record.label is None or record.label < 0:
            raise UnlabelledDataError(
                f"{record.identity()} has no label (it is {record.label}); k-NN needs one for each."
            )
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
    model: Any,
    images: LabelledImages,
    *,
    batch_size: int = 64,
    num_workers: int = 0,
    description: str = "",
    after_batch: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """The view features (`pooler_output`) of all images, [N, C] float32, and their labels [N], on the CPU.

    Each process runs its share, and all get all rows in the order of `images`. The model runs on its device, in its
    type; its modes and every random generator are left as they were. All call `after_batch` equally often; it may
    raise.

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
            after_batch()
    return torch.cat(features)[: len(images)], torch.cat(labels)[: len(images)]


def readable_features(model: Any, source: ImageSource, transform: Transform, **options: Any) -> tuple[Tensor, Tensor]:
    """As `extract_features`, without the unreadable images, which are named in the log.

    Raises:
        TooManyUnreadableImagesError, EmptySourceError: more than `SkipLog` allows are unreadable, or all.
        NonFiniteFeatureError: names the first image whose feature is not finite.
    """
    images = LabelledImages(source, transform)
    features, labels = extract_features(model, images, **options)
    readable = labels != UNREADABLE
    if not readable.any():
        raise EmptySourceError(f"none of the {len(images)} images can be read, {images.name(0)} to begin with.")
    skipped = SkipLog(len(images))
    for index in (~readable).nonzero()[:, 0].tolist():
        skipped.add({images.name(index): images.name(index)})
    if skipped.skipped and PartialState().is_main_process:
        logger.warning(skipped.summary())
    broken = (readable & ~features.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
    if broken:
        raise NonFiniteFeatureError(
            f"the feature of {images.name(broken[0])} is not finite, nor are those of {len(broken) - 1} more of the "
            f"{len(images)} images: the model's weights are broken, or overflow in {model.dtype}."
        )
    return features[readable], labels[readable]
