# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Computes the view features of a labelled source of images; all processes share the work."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather, gather_object
from PIL import Image
from torch import Tensor, nn

from modeling_esvit.embed.engine import (
    Extracted,
    LoadedImage,
    check_finite,
    compute_view_features,
    extract,
    load_ahead,
    load_image,
    stack_pixels,
)
from modeling_esvit.embed.progress import show_progress
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.transform import Transform
from training.data.shard_stream import ShardStream
from training.data.sources import ImageSource, describe_labels
from training.data.unreadable import SkipLog


UNREADABLE = -2  # the label of an image that cannot be read
SHOWN = 8  # classes in a message
GATHERED = 16  # batches of a process between two exchanges of features


class UnlabelledDataError(EsViTError, ValueError):
    """Raised when an image has no label."""


def list_items(source: ImageSource, rows: range) -> Iterator[Any]:
    """Returns the items of neighbouring images. A stream reads ahead, and each row group once."""
    return source.rows(rows.start, rows.stop) if isinstance(source, ShardStream) else iter(rows)


class LabelledImages:
    """Prepares the labelled images of a source of any kind for a model, in the source's own order.

    Raises:
        UnlabelledDataError: the source, or (while reading) an image of it, has no label.
    """

    def __init__(self, source: ImageSource, transform: Transform) -> None:
        if not source.has_labels:
            raise UnlabelledDataError(
                f"evaluation needs labels: a subfolder for each class, or a label column. {describe_labels(source)}"
            )
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source)

    def items(self, rows: range) -> Iterator[Any]:
        """Returns the items of neighbouring images, for `load`."""
        return list_items(self.source, rows)

    def name(self, index: int) -> str:
        return self.source.read(next(self.items(range(index, index + 1)))).identity()

    def load(self, item: Any) -> LoadedImage:
        record = self.source.read(item)
        if record.label is None or record.label < 0:
            raise UnlabelledDataError(
                f"{record.identity()} has no label (it is {record.label}); evaluation needs one for each."
            )
        names = self.source.class_names
        if names is not None and record.label >= len(names):
            raise UnlabelledDataError(
                f"{record.identity()} has the label {record.label}, and the classes are 0 .. {len(names) - 1}: "
                f"{', '.join(names[:SHOWN])}{' ...' * (len(names) > SHOWN)}. Write all labels with one ClassLabel."
            )
        return load_image(record, self.transform)

    def read(self, items: Iterator[Any], batch_size: int, threads: int) -> Iterator[LoadedImage]:
        """Returns each item loaded, in order; `threads` read and decode some batches ahead."""
        return load_ahead(items, self.load, batch_size=batch_size, threads=threads)


def process_items(images: LabelledImages, state: PartialState) -> Iterator[Any]:
    """Yields the items of this process's share of the images: rows `r n .. (r + 1) n - 1` of process r, with the same n
    for all. Shares that reach beyond the last image repeat it.
    """
    share = -(-len(images) // state.num_processes)
    first = min(state.process_index * share, len(images) - 1)
    rows = range(first, min(first + share, len(images)))
    for item in images.items(rows):
        yield item
    yield from itertools.repeat(item, share - len(rows))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model into evaluation mode; on leaving, every module is back in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def substitute_black(image: LoadedImage, transform: Transform, unreadable: dict[str, str]) -> LoadedImage:
    """Returns a black image with the label UNREADABLE in place of one that cannot be read, so that all processes
    compute equally many features. `unreadable` gets its name, and why.
    """
    if image.pixels is not None:
        return image
    unreadable[image.name] = image.unreadable
    return LoadedImage(image.name, UNREADABLE, transform(Image.new("RGB", (256, 256))))


@torch.no_grad()  # not inference_mode: a tensor that the model caches here must serve training as well
def extract_features(
    model: Any,
    images: LabelledImages,
    *,
    batch_size: int = 64,
    num_workers: int = 0,
    description: str = "",
    after_batch: Callable[[], None] = lambda: None,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    unreadable: dict[str, str],
) -> tuple[Tensor, Tensor]:
    """Returns the view features (`pooler_output`) of all images, `[N, C]` float32, and their labels `[N]`, on the CPU.

    Each process runs its share, and all get all rows in the order of `images`. The model runs on its device, in its
    type; its modes and every random generator are left as they were. `num_workers` threads read and decode. The
    model alone runs within `autocast()`. All call `after_batch` equally often; it may raise. `unreadable` gets the
    names of images of this process's share that cannot be read, and why; their label is UNREADABLE.

    Raises:
        FeatureError: the model has no pooled output.
    """
    state = PartialState()
    share = -(-len(images) // state.num_processes)
    read = images.read(process_items(images, state), batch_size, num_workers)
    loaded = (substitute_black(image, images.transform, unreadable) for image in read)
    bar = show_progress(description, share, "image", shown=state.is_main_process, leave=False)

    def note_batch(count: int) -> None:
        bar.update(count)
        after_batch()

    options: dict[str, Any] = {"batch_size": batch_size, "after_batch": note_batch}
    with evaluation_mode(model), bar:
        chunks = (itertools.islice(loaded, GATHERED * batch_size) for _ in range(0, share, GATHERED * batch_size))
        gathered = [
            gather_chunk(extract(chunk, partial(compute_view, model, autocast), **options), state) for chunk in chunks
        ]
    features, labels = (torch.cat(each, dim=1).flatten(0, 1)[: len(images)] for each in zip(*gathered, strict=True))
    return features, labels


def compute_view(model: Any, autocast: Callable[[], AbstractContextManager], images: list[LoadedImage]) -> list[Tensor]:
    with autocast():
        return [compute_view_features(model, stack_pixels(images, model)).float()]


def gather_chunk(found: Extracted, state: PartialState) -> tuple[Tensor, Tensor]:
    """Returns the features `[P, N, C]` and labels `[P, N]` of P processes that computed N images each, on the CPU."""
    [features] = found.outputs
    labels = torch.tensor(found.labels, device=features.device)
    shape = (state.num_processes, -1)
    return gather(features).cpu().unflatten(0, shape), gather(labels).cpu().unflatten(0, shape)


def extract_readable_features(
    model: Any, source: ImageSource, transform: Transform, **options: Any
) -> tuple[Tensor, Tensor]:
    """Returns what `extract_features` does, without the images that cannot be read, which the log names with reasons.

    Raises:
        TooManyUnreadableImagesError: more images than `SkipLog` allows cannot be read.
        EmptySourceError: no image can be read.
        FeatureError: a feature is not finite; the message names the first such image.
    """
    images, unreadable, skipped = LabelledImages(source, transform), dict[str, str](), SkipLog(len(source))
    features, labels = extract_features(model, images, unreadable=unreadable, **options)
    skipped.add(dict(each for found in gather_object([unreadable]) for each in found.items()))
    readable = labels != UNREADABLE
    if not readable.any():
        raise skipped.make_empty_error()
    skipped.warn()
    rows = readable.nonzero()[:, 0].tolist()
    check_finite(features[readable], lambda row: images.name(rows[row]), model.dtype)
    return features[readable], labels[readable]
