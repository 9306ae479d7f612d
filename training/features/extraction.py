# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The view features of a labelled source of images, with the work shared by all processes."""

import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding import UnreadableImageError, decode
from modeling_esvit.images.read_ahead import in_order
from training.data.shard_stream import ShardStream
from training.data.sources import EmptySourceError, ImageSource
from training.data.unreadable import SkipLog


logger = logging.getLogger(__name__)

UNREADABLE = -2  # the label of an image that cannot be read
LONGEST = 16  # times its shorter side: what is longer is cut before it is resized
AHEAD = 2  # batches that are read while one is computed

Item = TypeVar("Item")
Transform = Callable[[Image.Image], Tensor]  # RGB image of any size -> float [3, H, W], always of one size


class UnlabelledDataError(EsViTError, ValueError):
    """An image has no label."""


class NonFiniteFeatureError(EsViTError, ValueError):
    """A model gave NaN or infinity for an image."""


class NoViewFeatureError(EsViTError, ValueError):
    """A model has no pooled output."""


def middle(image: Image.Image) -> Image.Image:
    """All that a centre crop sees of an image longer than LONGEST times its shorter side; others as they are.

    A line of pixels, resized until its shorter side is 256, would not fit into memory.
    """
    width, height = (min(side, LONGEST * min(image.size)) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image if (width, height) == image.size else image.crop((left, top, left + width, top + height))


def _transform(image: Image.Image, processor: Any) -> Tensor:
    image = middle(image) if getattr(processor, "do_center_crop", False) else image
    return processor(image, return_tensors="pt")["pixel_values"][0]


def evaluation_transform(processor: Any) -> Transform:
    """The transform that an image processor of transformers stands for."""
    return partial(_transform, processor=processor)


class Loaded(NamedTuple):
    """An image as it goes into the model; `unreadable` says why there are no pixels."""

    name: str
    label: int
    pixels: Tensor | None
    unreadable: str = ""


class LabelledImages:
    """The images of a source of any kind, in its own order, ready for a model.

    Raises:
        UnlabelledDataError: the source, or (while reading) an image of it, has no label.
    """

    def __init__(self, source: ImageSource, transform: Transform) -> None:
        if not source.has_labels:
            raise UnlabelledDataError("evaluation needs labels: a subfolder for each class, or a label column.")
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source)

    def items(self, rows: range) -> Iterator[Any]:
        """What `load` takes, for neighbouring images; a stream reads its shards ahead, and each row group once."""
        return self.source.rows(rows.start, rows.stop) if isinstance(self.source, ShardStream) else iter(rows)

    def name(self, index: int) -> str:
        return self.source.read(next(self.items(range(index, index + 1)))).identity()

    def load(self, item: Any) -> Loaded:
        record = self.source.read(item)
        name = record.identity()
        if record.label is None or record.label < 0:
            raise UnlabelledDataError(f"{name} has no label (it is {record.label}); evaluation needs one for each.")
        try:
            return Loaded(name, record.label, self.transform(decode(record)))
        except UnreadableImageError as error:
            return Loaded(name, record.label, None, str(error))

    def read(self, items: Iterator[Any], batch_size: int, threads: int) -> Iterator[Loaded]:
        """Each item loaded, in order; `threads` read and decode some batches ahead."""
        return in_order(items, self.load, threads=max(threads, 1), ahead=AHEAD * batch_size)


def process_items(images: LabelledImages, state: PartialState) -> Iterator[Any]:
    """The items of this process's share of the images: the rows r n .. (r + 1) n - 1, n the same for all processes.

    Shares that reach beyond the last image repeat it.
    """
    share = -(-len(images) // state.num_processes)
    first = min(state.process_index * share, len(images) - 1)
    rows = range(first, min(first + share, len(images)))
    for item in images.items(rows):
        yield item
    yield from itertools.repeat(item, share - len(rows))


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


def pooled_features(model: Any, pixels: Tensor) -> Tensor:
    """View features [B, C] of pixel values.

    Raises:
        NoViewFeatureError: the model has no pooled output.
    """
    pooled = getattr(model(pixels), "pooler_output", None)
    if pooled is None:
        raise NoViewFeatureError(f"{type(model).__name__} gives no pooler_output: choose a model that does.")
    return pooled.flatten(1)


def with_pixels(loaded: Loaded, transform: Transform) -> Tensor:
    """Its pixel values; those of a black image for one that cannot be read."""
    return transform(Image.new("RGB", (256, 256))) if loaded.pixels is None else loaded.pixels


def batched(loaded: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while batch := list(itertools.islice(loaded, size)):
        yield batch


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
    type; its modes and every random generator are left as they were. `num_workers` threads read and decode. All call
    `after_batch` equally often; it may raise.

    Raises:
        NoViewFeatureError: the model has no pooled output.
    """
    state = PartialState()
    share = -(-len(images) // state.num_processes)
    batches = batched(images.read(process_items(images, state), batch_size, num_workers), batch_size)
    bar = tqdm(batches, description, -(-share // batch_size), leave=False, disable=not state.is_main_process)
    features, labels = [], []
    with evaluation_mode(model):
        for batch in bar:
            pixels = torch.stack([with_pixels(loaded, images.transform) for loaded in batch])
            pooled = pooled_features(model, pixels.to(model.device, model.dtype))
            own = torch.tensor([UNREADABLE if loaded.pixels is None else loaded.label for loaded in batch])
            features.append(by_process(gather(pooled.float()).cpu(), state))
            labels.append(by_process(gather(own.to(model.device)).cpu(), state))
            after_batch()
    return tuple(torch.cat(each, dim=1).flatten(0, 1)[: len(images)] for each in (features, labels))  # type: ignore


def by_process(gathered: Tensor, state: PartialState) -> Tensor:
    """[P * B, ...] of P processes -> [P, B, ...]."""
    return gathered.unflatten(0, (state.num_processes, -1))


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
