# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs a model over many images: reads them ahead, in order, and computes batches of those that can be read.

images = load_ahead(iter(records), partial(load_image, prepare=to_pixels), batch_size=64, threads=8)
found = extract(images, lambda batch: [compute_view_features(model, stack_pixels(batch, model))], batch_size=64)
check_finite(found.outputs[0], found.names.__getitem__, model.dtype)
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from PIL import Image
from torch import Tensor

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding import Record, UnreadableImageError, decode
from modeling_esvit.images.read_ahead import in_order


AHEAD = 2  # batches that are read while one is computed

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


class FeatureError(EsViTError, ValueError):
    """Raised when a model gives no view feature, or features that are not finite."""


class LoadedImage(NamedTuple):
    """Holds an image as a model takes it.

    name, label: of its record.
    pixels: `[3, H, W]`, or whatever else was prepared from the image; None if it cannot be read.
    unreadable: why it cannot be read.
    """

    name: str
    label: int | None
    pixels: Any
    unreadable: str = ""


@dataclass
class Extracted:
    """Holds what a model computed of images.

    names, labels: of the N images that could be read, in order.
    unreadable: name of every other image -> why.
    outputs: a tensor `[N, ...]` for each output, on the model's device; none if no image could be read.
    """

    names: list[str] = field(default_factory=list)
    labels: list[int | None] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    outputs: list[Tensor] = field(default_factory=list)


def load_image(record: Record, prepare: Callable[[Image.Image], Any]) -> LoadedImage:
    """Decodes a record and prepares it for a model. A record that cannot be decoded is returned with the reason."""
    name = record.identity()
    try:
        return LoadedImage(name, record.label, prepare(decode(record)))
    except UnreadableImageError as error:
        return LoadedImage(name, record.label, None, str(error))


def load_ahead(
    items: Iterator[Item], load: Callable[[Item], Loaded], *, batch_size: int, threads: int
) -> Iterator[Loaded]:
    """Returns each item loaded, in order, while `threads` load some batches ahead."""
    return in_order(items, load, threads=max(threads, 1), ahead=AHEAD * batch_size)


def take_batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Yields lists of `size` items, and a shorter one at the end."""
    while batch := list(itertools.islice(items, size)):
        yield batch


def skip_unreadable(images: Iterator[LoadedImage], note: Callable[[dict[str, str]], object]) -> Iterator[LoadedImage]:
    """Yields the images that can be read, and tells `note` the name of each other one, with the reason."""
    for image in images:
        if image.pixels is None:
            note({image.name: image.unreadable})
        else:
            yield image


def stack_pixels(images: list[LoadedImage], model: Any) -> Tensor:
    """Returns pixel values `[B, 3, H, W]` on the model's device and in its type."""
    return torch.stack([image.pixels for image in images]).to(model.device, model.dtype, non_blocking=True)


def select_view_features(model: Any, output: Any) -> Tensor:
    """Returns the view features `[B, C]` in the output of a model.

    Raises:
        FeatureError: the model has no pooled output.
    """
    pooled = getattr(output, "pooler_output", None)
    if pooled is None:
        raise FeatureError(f"{type(model).__name__} gives no pooler_output: choose a model that does.")
    return pooled.flatten(1)


def compute_view_features(model: Any, pixels: Tensor) -> Tensor:
    """Returns the view features `[B, C]` of pixel values `[B, 3, H, W]`.

    Raises:
        FeatureError: the model has no pooled output.
    """
    return select_view_features(model, model(pixels))


def extract(
    images: Iterator[LoadedImage],
    compute: Callable[[list[LoadedImage]], list[Tensor]],
    *,
    batch_size: int,
    after_batch: Callable[[int], object] = lambda count: None,
) -> Extracted:
    """Computes batches of images and leaves out those that cannot be read.

    Args:
        compute: gets the readable images of a batch and returns a tensor `[B, ...]` for each output.
        after_batch: gets the number of images of each batch, unreadable ones included; it may raise.
    """
    found, computed = Extracted(), list[list[Tensor]]()
    for batch in take_batches(images, batch_size):
        readable = [image for image in batch if image.pixels is not None]
        found.names += [image.name for image in readable]
        found.labels += [image.label for image in readable]
        found.unreadable |= {image.name: image.unreadable for image in batch if image.pixels is None}
        if readable:
            computed.append(compute(readable))
        after_batch(len(batch))
    # On an accelerator, nothing waits for the device before this.
    found.outputs = [torch.cat(tensors) for tensors in zip(*computed, strict=True)]
    return found


def check_finite(features: Tensor, name_of: Callable[[int], str], dtype: torch.dtype) -> None:
    """Checks features `[N, ...]` of images, which `name_of` names by their row, computed in `dtype`.

    Raises:
        FeatureError: a feature is NaN or infinite; the message names the first such image.
    """
    finite = features.flatten(1).isfinite().all(dim=1).tolist()
    if not all(finite):
        raise FeatureError(
            f"The feature of {name_of(finite.index(False))} is not finite, nor are {finite.count(False) - 1} more of "
            f"{len(finite)}: the model's weights are broken, or overflow in {dtype} (try torch.bfloat16)."
        )
