# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Scores the matches in all images of a source, with the work shared by all processes.

The batches do not depend on the number of processes, and one process makes each part of the result, so any number of
processes gives the same digits. If a call is stopped, the next call makes the parts that are missing.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor

from modeling_esvit.embed.engine import LoadedImage, check_finite, extract, load_ahead, load_image
from modeling_esvit.embed.files import Features, concatenate
from modeling_esvit.embed.parts import Parts, cut_rows, make_parts
from training.data.identity import identify_source
from training.data.sources import ImageSource
from training.data.unreadable import SkipLog
from training.features.extraction import list_items
from training.features.frozen_models import FrozenModel, find_training_view
from training.features.regions import compute_region_features, find_even_grid, make_region_forward
from training.matching.measures import (
    MIRRORED_NAMES,
    POSITION_NAMES,
    Matches,
    find_best_matches,
    score_mirrored,
    score_positions,
)
from training.matching.pairs import MIRRORED, Pair, make_pair


BATCHES = 16  # batches in a part; a stopped process loses at most one part


@dataclass(frozen=True)
class Measured:
    """Defines what is measured: the kinds of pairs (of `pairs.PAIRS`), the `side` of their views, and the seed."""

    pairs: tuple[str, ...]
    side: int
    seed: int
    batch_size: int


class MeasuredImages(NamedTuple):
    """Holds the scores of all images.

    scores: a row for each readable image, by the kind of pairs.
    parts: those from which a stopped call continues; the caller deletes them.
    skipped: the images that cannot be read; the caller says which.
    """

    scores: dict[str, Tensor]
    parts: Parts
    skipped: SkipLog


class PairImages:
    """Reads the images of any source, in the source's order, as pairs of views."""

    def __init__(self, source: ImageSource, measured: Measured) -> None:
        self.source, self.measured = source, measured

    def __len__(self) -> int:
        return len(self.source)

    def load(self, numbered: tuple[int, Any]) -> LoadedImage:
        number, item = numbered
        return load_image(self.source.read(item), partial(self.make_pairs, number=number))

    def make_pairs(self, image: Image.Image, number: int) -> tuple[Pair, ...]:
        side, seed = self.measured.side, self.measured.seed
        return tuple(make_pair(name, image, side, seed, number) for name in self.measured.pairs)

    def read(self, rows: range, threads: int) -> Iterator[LoadedImage]:
        """Returns the images with their pairs as `pixels`."""
        numbered = zip(rows, list_items(self.source, rows), strict=True)
        return load_ahead(numbered, self.load, batch_size=self.measured.batch_size, threads=threads)


class RegionMatcher:
    """Matches the regions of the first views of pairs with those of their second views.

    Attributes:
        grid: Rows and columns of the regions of a view.
    """

    def __init__(self, model: FrozenModel, side: int) -> None:
        """Finds the regions of views of `side` pixels.

        Raises:
            TokenPlacesError: see `compute_region_features` and `find_even_grid`.
        """
        self.model = model
        _, self.mean, self.std = find_training_view(model)
        self.grid = find_even_grid(compute_region_features(model.model, torch.zeros(1, 3, side, side))[1])
        self.forward = make_region_forward(model)

    def match(self, pairs: list[Pair], names: list[str]) -> Matches:
        """Returns the matches of each pair, on the CPU.

        Raises:
            FeatureError: names the first image with features that are not finite.
        """
        network = self.model.model
        pixels = torch.stack([pair.make_pixels(self.mean, self.std) for pair in pairs]).flatten(0, 1)
        features = self.forward(pixels.to(network.device, network.dtype))[0].unflatten(0, (len(pairs), 2))
        check_finite(features, names.__getitem__, network.dtype)
        found = find_best_matches(features[:, 0], features[:, 1])
        return Matches(found.regions.cpu(), found.similarity.cpu())


def score_pairs(matcher: RegionMatcher, name: str, pairs: list[Pair], names: list[str]) -> Tensor:
    """Scores pairs of the kind `name` by `score_mirrored` or `score_positions`; returns a row for each pair."""
    found, grid = matcher.match(pairs, names), matcher.grid
    size = (pairs[0].views[0].shape[0], pairs[0].views[0].shape[1])
    if name == MIRRORED:
        return score_mirrored(found, grid, size)
    return score_positions(found.regions, torch.stack([pair.locate_regions(grid) for pair in pairs]), grid, size)


def measure_part(
    matcher: RegionMatcher, measured: Measured, images: Iterator[LoadedImage], after_batch: Callable[[int], object]
) -> Features:
    """Returns the scores of all kinds of pairs of each image, in the field `view` of `Features`."""
    compute = partial(score_batch, matcher, measured)
    found = extract(images, compute, batch_size=measured.batch_size, after_batch=after_batch)
    scores = found.outputs[0].numpy() if found.outputs else np.empty((0, 0))
    return Features(found.names, scores, None, found.unreadable)


def score_batch(matcher: RegionMatcher, measured: Measured, images: list[LoadedImage]) -> list[Tensor]:
    """Returns a row for each image: the scores of its pairs, kind after kind."""
    names = [image.name for image in images]
    kinds = zip(measured.pairs, zip(*(image.pixels for image in images), strict=True), strict=True)
    return [torch.cat([score_pairs(matcher, name, list(pairs), names) for name, pairs in kinds], dim=1)]


def measure_images(
    matcher: RegionMatcher, source: ImageSource, measured: Measured, output: Path, *, threads: int
) -> MeasuredImages:
    """Scores all images. All processes call it.

    Meanwhile the scores are kept in parts beside `output`. A later call continues from them.

    Raises:
        FeatureError, CompileError: the model cannot be used, or not compiled.
        OutputError: parts of another call are there, or a part is damaged, or no image can be read.
        TooManyUnreadableImagesError: more than `SkipLog` allows.
    """
    images = PairImages(source, measured)
    settings = {**matcher.model.settings, **asdict(measured)}
    parts, rows = Parts(output, settings, identify_source(source)), cut_rows(len(images), BATCHES * measured.batch_size)
    parts.begin()
    make_part = partial(measure_part, matcher, measured)
    read, expect = partial(images.read, threads=threads), partial(expect_images, matcher, measured)
    make_parts(parts, rows, read, make_part, expect=expect, description="correspondence")
    PartialState().wait_for_everyone()
    everything = concatenate([parts.read(number) for number in range(len(rows))])
    skipped = SkipLog(len(images))
    skipped.add(everything.unreadable)
    return MeasuredImages(split_by_kind(torch.from_numpy(everything.view), measured), parts, skipped)


def expect_images(matcher: RegionMatcher, measured: Measured, images: int) -> None:
    """Notes how many views this process computes in all, see [`BatchForward.expect`]."""
    matcher.forward.expect(2 * len(measured.pairs) * images, 2 * measured.batch_size)


def split_by_kind(scores: Tensor, measured: Measured) -> dict[str, Tensor]:
    widths = [len(MIRRORED_NAMES if name == MIRRORED else POSITION_NAMES) for name in measured.pairs]
    return dict(zip(measured.pairs, scores.split(widths, dim=1), strict=True))
