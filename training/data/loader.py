# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Loads batches of multi-crop views from a source of images.

The main process walks the order that `batch_order` decides, and tells the workers what to read; they decode and crop.
"""

import traceback
from collections.abc import Callable, Generator
from multiprocessing import active_children
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from modeling_esvit.images.decoding import Record, UnreadableImageError, WidthHeight, decode
from training.data.batch_order import BatchOrder, BatchRequest, BatchRequests
from training.data.lost_workers import PATIENCE, WorkerWatch
from training.data.shared_memory import AHEAD
from training.data.sources import ImageSource
from training.data.unreadable import TooManyUnreadableImagesError
from training.data.worker_signals import outlive_signals
from training.views.draw import CropParameters, ViewKey, ViewOptions, draw_views
from training.views.locations import RegionLocator
from training.views.on_device import pack_parameters
from training.views.pixels import choose_sufficient_size, write_views


class Batch(NamedTuple):
    """Holds one batch of one process."""

    groups: list[Tensor]  # [2*B, 3, h, w], then [n_i*B, 3, h_i, w_i] for each set of local crops; crop-major
    positions: Tensor  # int64 [B], in the order of the epoch
    labels: Tensor | None  # int64 [B], -1 for an image without a label; None for a source without labels
    skipped: dict[str, str]  # unreadable images that were replaced: name -> message
    parameters: list[Tensor] | None = None  # of the photometric operations, a row a view, if left to the device
    places: Tensor | None = None  # int64 [B, S, 2], of the regions in the global views: see `RegionLocator.locate`


def take_images(batch: Batch, count: int) -> Batch:
    """Returns a batch of the first `count` images of a batch."""
    size = len(batch.positions)

    def take(rows: Tensor) -> Tensor:  # crop-major
        return rows.unflatten(0, (-1, size))[:, :count].flatten(0, 1)

    return batch._replace(
        groups=[take(group) for group in batch.groups],
        positions=batch.positions[:count],
        labels=None if batch.labels is None else batch.labels[:count],
        parameters=None if batch.parameters is None else [take(rows) for rows in batch.parameters],
        places=None if batch.places is None else batch.places[:count],
    )


class ViewsDataset(Dataset[Batch]):
    """Makes the batch that a `BatchRequest` asks for.

    Raises:
        TooManyUnreadableImagesError: an image and its MAX_REPLACEMENTS successors cannot be read.
    """

    def __init__(
        self,
        source: ImageSource,
        options: ViewOptions,
        seed: int,
        augment: bool = True,
        locator: RegionLocator | None = None,
    ) -> None:
        self.read: Callable[[Any], Record] = source.read  # of a stream, a function without the stream
        self.has_labels, self.options, self.seed = source.has_labels, options, seed
        self.augment, self.locator = augment, locator

    def __getitem__(self, request: BatchRequest) -> Batch:
        batch = len(request.positions)
        groups = make_empty_groups(batch, self.options, torch.float32 if self.augment else torch.uint8)
        drawn, labels = [], []
        skipped: dict[str, str] = {}
        for slot, position in enumerate(request.positions):
            key, views = ViewKey(self.seed, request.epoch, position), select_views(slot, groups, batch)
            record, crops = self._write_first_readable(request.candidates[slot], key, views, skipped)
            drawn.append(crops)
            labels.append(-1 if record.label is None else record.label)
        return Batch(
            groups=groups,
            positions=torch.tensor(request.positions),
            labels=torch.tensor(labels) if self.has_labels else None,
            skipped=skipped,
            parameters=None if self.augment else self._parameters(drawn),
            places=None if self.locator is None else self.locator.locate(drawn),
        )

    def _write_first_readable(
        self, items: list[Any], key: ViewKey, slots: list[Tensor], skipped: dict[str, str]
    ) -> tuple[Record, list[CropParameters]]:
        for item in items:
            record = self.read(item)
            try:
                return record, self._write(record, key, slots)
            except UnreadableImageError as error:
                skipped[record.identity()] = message = str(error)
        raise TooManyUnreadableImagesError(f"{len(items)} images in a row cannot be read; the last one: {message}.")

    def _write(self, record: Record, key: ViewKey, slots: list[Tensor]) -> list[CropParameters]:
        """Writes the views of an image. Boxes are drawn for the size that the file states, before it is decoded."""
        crops: list[CropParameters] = []
        stated: WidthHeight = (0, 0)

        def sufficient(size: WidthHeight) -> WidthHeight:
            nonlocal crops, stated
            stated, crops = size, draw_views(key, size, self.options)
            return choose_sufficient_size(size, crops)

        write_views(decode(record, sufficient), stated, crops, slots)
        return crops

    def _parameters(self, drawn: list[list[CropParameters]]) -> list[Tensor]:
        """Returns a tensor for each group, its rows crop-major."""
        by_crop = iter(zip(*drawn, strict=True))
        return [pack_parameters([crop for _ in group for crop in next(by_crop)]) for group in self.options.groups]


def make_empty_groups(batch: int, options: ViewOptions, dtype: torch.dtype) -> list[Tensor]:
    """Makes empty `[2*B, 3, h, w]` for the global crops, then `[n_i*B, 3, h_i, w_i]` for each set i of local ones."""
    return [torch.empty(len(group) * batch, 3, *group[0].size, dtype=dtype) for group in options.groups]


def select_views(image: int, groups: list[Tensor], batch: int) -> list[Tensor]:
    """Selects the places of one image's views in crop order. Groups are crop-major: all images of a crop in a row."""
    return [group[row] for group in groups for row in range(image, len(group), batch)]


def make_loader(
    source: ImageSource,
    options: ViewOptions,
    order: BatchOrder,
    *,
    num_workers: int = 0,
    pin_memory: bool = False,
    augment: bool = True,
    locator: RegionLocator | None = None,
) -> DataLoader[Batch]:
    """Makes the loader of a process. Its batches are the same for any `num_workers`.

    Workers live, and prefetch, across the epochs of one loader. Without `augment`, views are bytes, and the photometric
    operations are left to `on_device.augment`. With a `locator`, batches say which regions lie at the same place.

    Raises:
        DataOptionError: see `BatchRequests`.
    """
    return DataLoader(
        ViewsDataset(source, options, order.seed, augment, locator),
        batch_size=None,  # a request is a whole batch
        sampler=BatchRequests(source, order),
        num_workers=num_workers,
        prefetch_factor=AHEAD if num_workers else None,
        pin_memory=pin_memory,
        worker_init_fn=outlive_signals,
        generator=torch.Generator(),  # else making an iterator would draw from, and so change, the global one
    )


def iterate(loader: DataLoader[Batch], patience: float = PATIENCE) -> Generator[Batch, None, None]:
    """Yields the batches of a loader, and ends its workers as soon as it is closed or fails.

    A loader's iterator ends its workers when nothing refers to it any more. The traceback of an error would keep it
    alive until the program ends, and the program would then wait for the workers. So its frames are cleared.

    Raises:
        LostWorkerError: a worker has ended, or no batch came for `patience` seconds.
    """
    others = set(active_children())
    batches = iter(loader)
    workers = set(active_children()) - others
    with WorkerWatch(workers, patience) as watch:
        try:
            while True:
                try:
                    batch = watch.wait_for_batch(batches)
                except StopIteration:
                    return
                yield batch
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            del batches
