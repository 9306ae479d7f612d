# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures a few images of a source before a run begins, and says what looks wrong, in numbers.

Images that are nearly black are often of 12 bits that are stored in 16, masks, or of a wrong column.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from modeling_esvit.embed.engine import LoadedImage, load_image
from modeling_esvit.images.decoding import count_frames
from modeling_esvit.images.read_ahead import in_order
from modeling_esvit.images.wording import show_reasons
from training.data.shard_stream import ShardStream
from training.data.sources import ImageSource
from training.data.unreadable import limit_unreadable


SAMPLE = 48  # images that are looked at
THREADS = 4
SIDE = 64  # pixels; of what is looked at
DARK, BRIGHT = 10, 245  # means of grey levels beyond which an image looks black or white
SUSPICIOUS = 0.05  # share of the sample from which on it is worth a word


@dataclass(frozen=True)
class Levels:
    """Holds the grey levels of an image, 0 .. 255, and how many pages or frames its file has."""

    name: str
    frames: int
    mean: float
    low: int
    high: int


def measure_levels(image: Image.Image) -> tuple[float, int, int]:
    """Returns mean, lowest and highest grey level of an RGB image."""
    low, high = image.convert("L").getextrema()
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return float(np.asarray(image.convert("L")).mean()), int(low), int(high)  # type: ignore[arg-type]


def choose_items(source: ImageSource) -> Iterator[Any]:
    """Returns the items of images from everywhere in a source; the first ones of a stream, which is read in order."""
    count = min(SAMPLE, len(source))
    if isinstance(source, ShardStream):
        return itertools.islice(source.rows(0, count), count)
    return iter(np.linspace(0, len(source) - 1, count).round().astype(int).tolist())


def sample_levels(source: ImageSource) -> tuple[list[Levels], dict[str, str]]:
    """Returns the levels of a few images of a source, and why others of them cannot be read."""

    def load(item: Any) -> LoadedImage:
        record = source.read(item)
        return load_image(record, lambda image: (count_frames(record), *measure_levels(image)))

    loaded = list(in_order(choose_items(source), load, threads=THREADS, ahead=2 * THREADS))
    levels = [Levels(image.name, *image.pixels) for image in loaded if image.pixels is not None]
    return levels, {image.name: image.unreadable for image in loaded if image.pixels is None}


def describe_sample(source: ImageSource, max_unreadable: float) -> list[str]:
    """Returns a line for each thing that looks wrong with a few images of a source; none if all looks right.

    Args:
        max_unreadable: the share of images that may be unreadable, see `limit_unreadable`.
    """
    levels, unreadable = sample_levels(source)
    count = len(levels) + len(unreadable)
    flat = [each for each in levels if each.high - each.low <= 1]
    dark = [each for each in levels if each.mean < DARK and each not in flat]
    bright = [each for each in levels if each.mean > BRIGHT and each not in flat]
    kinds = {"have one grey level alone": flat, "are nearly black": dark, "are nearly white": bright}
    lines = [
        f"Warning: {len(found)} of {count} sampled images {kind}: {show_levels(found[0])}."
        for kind, found in kinds.items()
        if len(found) >= SUSPICIOUS * count and found
    ]
    several = [each for each in levels if each.frames > 1]
    if several:
        lines.append(
            f"Warning: {len(several)} of {count} sampled images have several pages or frames, of which the first is "
            f"read: {several[0].name} has {several[0].frames}."
        )
    if dark and lines:
        lines.append("If they hold 12 or 14 bits in 16, add --white_level 4095 or 16383.")
    return [*lines, *warn_of_unreadable(unreadable, count, len(source), max_unreadable)]


def warn_of_unreadable(unreadable: dict[str, str], sampled: int, images: int, max_unreadable: float) -> list[str]:
    """Returns a line if many of the sampled images cannot be read, or so many that the run will end for it."""
    share = len(unreadable) / max(sampled, 1)
    expected, limit = share * images, limit_unreadable(images, max_unreadable)
    if not unreadable or (share < SUSPICIOUS and expected <= limit):
        return []
    line = f"Warning: {len(unreadable)} of {sampled} sampled images cannot be read: {show_reasons(unreadable)}"
    if expected > limit:
        enough = min(1.0, math.ceil(200 * share) / 100)
        line += (
            f". That may be {expected:.0f} of all {images:,}, and the run ends when it has met more than {limit:.0f}: "
            f"repair or remove them, or add --max_unreadable {enough}"
        )
    return [line]


def show_levels(levels: Levels) -> str:
    return f"{levels.name} has grey levels {levels.low} .. {levels.high} of 255, {levels.mean:.1f} on average"
