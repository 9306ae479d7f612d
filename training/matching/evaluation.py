# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the correspondences of a model: those of all images of a source, and those of the stereo pair."""

import math
from pathlib import Path
from typing import Any

from torch import Tensor

from modeling_esvit.analysis.token_places import Size
from modeling_esvit.images.data_errors import DataOptionError
from training.data.sources import ImageSource
from training.features.frozen_models import FrozenModel, find_training_view
from training.features.regions import Grid, compute_region_side, find_even_side
from training.matching.measures import MIRRORED_NAMES, average_scores, compute_mirrored_chance
from training.matching.over_images import Measured, MeasuredImages, RegionMatcher, measure_images
from training.matching.pairs import MIRRORED
from training.matching.stereo import choose_size, match_stereo


def average_mirrored(scores: Tensor, grid: Grid, size: Size) -> dict[str, float]:
    """Averages the scores over images, beside what random guesses reach; NaN for a similarity that no image has."""
    means = scores.nanmean(dim=0).tolist()
    return dict(zip(MIRRORED_NAMES, means, strict=True)) | compute_mirrored_chance(grid, size)


def replace_nan(result: dict[str, float]) -> dict[str, float | None]:
    """Replaces NaN by None, because JSON has no NaN."""
    return {name: None if math.isnan(value) else value for name, value in result.items()}


def choose_side(model: FrozenModel, given: int | None = None) -> int:
    """Returns the side of the views: the one given, or that of the model, or the next larger one in whole regions.

    Raises:
        DataOptionError: the model's own images are not square, and no size is given.
        TokenPlacesError, FrozenModelError: the model has no regions whose places are known.
    """
    (height, width), _, _ = find_training_view(model)
    if given is None and height != width:
        raise DataOptionError(f"the images of {model.name} are {height} x {width}: name an --image_size.")
    return given or find_even_side(model.model, height)


def measure_source(
    model: FrozenModel, source: ImageSource, measured: Measured, output: Path, threads: int
) -> tuple[dict[str, Any], MeasuredImages]:
    """Returns the results of all measures of images, and what they are made of."""
    side = measured.side
    matcher = RegionMatcher(model, side)
    size, grid = (side, side), matcher.grid
    found = measure_images(matcher, source, measured, output, threads=threads)
    images = len(next(iter(found.scores.values())))
    result: dict[str, Any] = {"images": images, "image_size": side, "grid": list(grid)}
    for measure, rows in found.scores.items():
        result[measure] = replace_nan(
            average_mirrored(rows, grid, size) if measure == MIRRORED else average_scores(rows)
        )
    return result, found


def measure_stereo(model: FrozenModel, size: Size | None = None) -> dict[str, float]:
    """Scores the stereo pair in views of `size`; the default is about 1024 x 1536 pixels, in whole regions."""
    (height, _), mean, std = find_training_view(model)
    size = size or choose_size(compute_region_side(model.model, height))
    return match_stereo(model.model, size=size, image_mean=mean, image_std=std).score()
