# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Prepares whole images for a model that takes any size: in their own proportions, without a crop."""

from typing import Any

import numpy as np
import torch
from PIL import Image


LONGER_SIDE = 448  # pixels


def fit_size(size: tuple[int, int], longer: int, multiple: int) -> tuple[int, int]:
    """Returns height and width, multiples of `multiple`, in about the proportions of an image of `size` (width, height)
    and with about `longer` pixels on the longer side.
    """
    scale = longer / max(size)
    width, height = (max(round(side * scale / multiple), 1) * multiple for side in size)
    return height, width


def whole_image(image: Image.Image, processor: Any, *, longer: int = LONGER_SIDE, multiple: int = 32) -> torch.Tensor:
    """Returns an RGB image as pixel values `[1, 3, H, W]`, see `fit_size`.

    Args:
        processor: an image processor of transformers, for the statistics that the model was trained with.
        multiple: `region_stride` of the model leaves no region incomplete.
    """
    height, width = fit_size(image.size, longer, multiple)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    return ((pixels - mean) / std)[None]
