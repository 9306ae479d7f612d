# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the training images of a linear probe, cropped and flipped at random, in an order known beforehand.

The draws of an image are a function of (seed, epoch, position in the epoch). The images of a step are the same for any
number of processes, except those of a stream, of which each process reads its own rows.
"""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modeling_esvit.embed.engine import LoadedImage, load_ahead, load_image, take_batches
from training.data.shard_stream import ShardStream
from training.data.sources import ImageSource, describe_labels, shuffle_epoch
from training.features.extraction import UnlabelledDataError
from training.features.frozen_models import FrozenModel, find_training_view
from training.views.draw import FLIP_PROBABILITY, draw_box, make_keyed_generator


SCALE = (0.08, 1.0)  # area of a crop, as a share of the image


class ProbeView(NamedTuple):
    """Makes a view by RandomResizedCrop (area 8% to 100%, bilinear) and flip, as in the original linear evaluation."""

    size: tuple[int, int]  # height, width
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def make(self, image: Image.Image, generator: np.random.Generator) -> Tensor:
        """Crops and flips an RGB image; returns normalised pixel values `[3, h, w]`."""
        top, left, height, width = draw_box(generator, image.size, SCALE)
        crop = image.crop((left, top, left + width, top + height))
        crop = crop.resize(self.size[::-1], Image.Resampling.BILINEAR)
        if generator.random() < FLIP_PROBABILITY:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(crop)).permute(2, 0, 1) / 255
        return (pixels - torch.tensor(self.mean).view(3, 1, 1)) / torch.tensor(self.std).view(3, 1, 1)


class ProbeImages:
    """Reads batches for one process.

    Args:
        batch_size: images in a step of all processes together, a multiple of `world`.
        rank, world: number of this process, and the number of processes.

    Raises:
        UnlabelledDataError: the source has no labels or, while reading, an image has none.
    """

    def __init__(
        self, source: ImageSource, model: FrozenModel, *, seed: int, batch_size: int, rank: int, world: int
    ) -> None:
        if not source.has_labels:
            raise UnlabelledDataError(
                "a linear probe needs labels: images in a subfolder for each class, or a label column. "
                f"{describe_labels(source)}"
            )
        self.source, self.view = source, ProbeView(*find_training_view(model))
        self.seed, self.rank, self.world, self.share = seed, rank, world, batch_size // world

    def list_items(self, epoch: int) -> list[tuple[int, int]] | Iterator[tuple[int, Any]]:
        """Lists (position in the epoch, item) of this process, step by step."""
        if isinstance(self.source, ShardStream):
            count = len(self.source) // self.world
            records = self.source.rank_items(self.seed, epoch, self.rank, count, 0)
            return enumerate(islice(records, count), start=self.rank * count)
        order = shuffle_epoch(len(self.source), self.seed, epoch)
        return [(position, int(order[position])) for step in self.split_steps() for position in step]

    def split_steps(self) -> list[range]:
        """Returns the positions of this process in each step of an epoch, for a source that is not a stream."""
        whole, found = self.share * self.world, []
        for start in range(0, len(self.source), whole):
            positions = range(start, min(start + whole, len(self.source)))
            share = -(-len(positions) // self.world)
            found.append(positions[self.rank * share : (self.rank + 1) * share])
        return found

    def load_epoch(self, epoch: int, threads: int) -> Iterator[list[LoadedImage]]:
        """Loads the images of each step. In the last step a process may get an empty batch."""
        items = iter(self.list_items(epoch))
        loaded = load_ahead(items, partial(self.load, epoch), batch_size=self.share, threads=threads)
        if isinstance(self.source, ShardStream):
            return take_batches(loaded, self.share)
        return (list(islice(loaded, len(step))) for step in self.split_steps())

    def count_steps(self) -> int:
        """Returns the number of steps of an epoch."""
        count = len(self.source) // self.world if isinstance(self.source, ShardStream) else len(self.source)
        return -(-count // (self.share if isinstance(self.source, ShardStream) else self.share * self.world))

    def load(self, epoch: int, numbered: tuple[int, Any]) -> LoadedImage:
        position, item = numbered
        record = self.source.read(item)
        if record.label is None or record.label < 0:
            raise UnlabelledDataError(
                f"{record.identity()} has no label (it is {record.label}). A linear probe needs one for each image."
            )
        return load_image(record, partial(self.view.make, generator=make_keyed_generator(self.seed, epoch, position)))
