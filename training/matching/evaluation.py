# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Measures the correspondences of a model: those of all images of a source, and those of the stereo pair."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modeling_esvit.analysis.token_places import Size
from modeling_esvit.embed.files import Parts
from training.data.sources import ImageSource
from training.features.frozen_models import FrozenModel, training_view
from training.features.regions import Grid, even_grid, region_features, region_side
from training.matching.measures import MIRRORED_NAMES, mirrored_chance, shares
from training.matching.over_images import Measured, measure_images
from training.matching.pairs import MIRRORED
from training.matching.stereo import match_stereo, whole_size


def average_mirrored(scores: Tensor, grid: Grid, size: Size) -> dict[str, float]:
    """Means over images, beside what guesses at random reach; NaN for a similarity that no image has."""
    means = scores.nanmean(dim=0).tolist()
    return dict(zip(MIRRORED_NAMES, means, strict=True)) | mirrored_chance(grid, size)


def replace_nan(result: dict[str, float]) -> dict[str, float | None]:
    """With None for NaN, which JSON does not have."""
    return {name: None if math.isnan(value) else value for name, value in result.items()}


def measure_source(
    model: FrozenModel, source: ImageSource, measured: Measured, output: Path, threads: int
) -> tuple[dict[str, Any], Parts]:
    """The result of all measures of images, and what a stopped call would go on with, beside `output`."""
    side = measured.side
    _, places = region_features(model.model, torch.zeros(1, 3, side, side))
    size, grid = (side, side), even_grid(places)
    scores, parts = measure_images(model, source, measured, output, threads=threads)
    result: dict[str, Any] = {"images": len(next(iter(scores.values()))), "image_size": side, "grid": list(grid)}
    for measure, rows in scores.items():
        result[measure] = replace_nan(average_mirrored(rows, grid, size) if measure == MIRRORED else shares(rows))
    return result, parts


def measure_stereo(model: FrozenModel, size: Size | None = None) -> dict[str, float]:
    """In views of `size`, or of about 1024 x 1536 pixels in whole regions."""
    (height, _), mean, std = training_view(model)
    size = size or whole_size(region_side(model.model, height))
    return match_stereo(model.model, size=size, image_mean=mean, image_std=std).scores()
