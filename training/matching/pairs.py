# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes pairs of views of one image for which the true correspondence is known.

    mirrored     the paper's pair (section 4.3): the image, and its mirror image with changed colours, in grey
    crops        two random crops, possibly flipped, with the original colours
    recoloured   two random crops with the colour changes of pretraining: jitter, blur and so on

All random draws are functions of the seed and the number of the image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modeling_esvit.analysis.token_places import Size
from training.features.regions import Grid
from training.matching.measures import compute_centres
from training.views.draw import (
    POLICIES,
    CropBox,
    CropParameters,
    CropRecipe,
    Draws,
    PhotometricAugmentation,
    draw_crop,
    draw_jitter,
    make_keyed_generator,
)
from training.views.pixels import augment_view, crop_view


SCALE = (0.4, 1.0)  # share of the image's area, as for the global crops of pretraining
RESIZED = 256 / 224  # shorter side of the image / side of the central crop
MIRRORED, CROPS, RECOLOURED = "mirrored", "crops", "recoloured"
POLICY = {CROPS: POLICIES["basic"], RECOLOURED: POLICIES["dino"]}
PAIRS = (MIRRORED, *POLICY)


class Pair(NamedTuple):
    """Holds two uint8 views `[h, w, 3]`, and where each of them lies in the image."""

    views: tuple[np.ndarray, np.ndarray]
    places: tuple[CropParameters, CropParameters]

    def make_pixels(self, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """Returns the normalised views, `[2, 3, h, w]`."""
        stacked = torch.from_numpy(np.stack(self.views)).permute(0, 3, 1, 2) / 255
        return (stacked - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    def locate_regions(self, grid: Grid) -> Tensor:
        """Locates the centre of each region of the first view in the second: x and y `[T, 2]`, NaN if it is outside."""
        return project_centres(self.places[1], self.places[0], grid)


def make_pair(name: str, image: Image.Image, side: int, seed: int, number: int) -> Pair:
    """Makes the pair `name`, one of PAIRS, of an RGB image, with square views of `side` pixels."""
    if name == MIRRORED:
        return make_mirrored_pair(
            crop_centre(image, side), make_keyed_generator(seed, 0, number, 0, draws=Draws.MATCHING)
        )
    policy, first = POLICY[name], 1 + 2 * list(POLICY).index(name)
    pixels, views, places = np.array(image), [], []
    for crop, photometry in enumerate((policy.global_1, policy.global_2)):
        generator = make_keyed_generator(seed, 0, number, first + crop, draws=Draws.MATCHING)
        place = draw_crop(generator, image.size, CropRecipe((side, side), SCALE, photometry))
        views.append(augment_view(cv2.merge(crop_view(pixels, image.size, place)), place))
        places.append(place)
    return Pair((views[0], views[1]), (places[0], places[1]))


def crop_centre(image: Image.Image, side: int) -> np.ndarray:
    """Applies the evaluation transform: for `side` 224, resizes the shorter side to 256 and crops the centre."""
    shorter = round(side * RESIZED)
    width, height = (shorter * length // min(image.size) for length in image.size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized.crop((left, top, left + side, top + side)))


def make_mirrored_pair(view: np.ndarray, generator: np.random.Generator) -> Pair:
    """Pairs a view with its mirror image, which is colour-jittered with probability 0.8 and converted to grey."""
    size, box = view.shape[:2], CropBox(0, 0, *view.shape[:2])
    jitter = draw_jitter(generator, PhotometricAugmentation(jitter=0.8))
    first = CropParameters(size, box, flip=False, jitter=(), grayscale=False, blur_radius=0.0, solarize=False)
    second = CropParameters(size, box, flip=True, jitter=jitter, grayscale=True, blur_radius=0.0, solarize=False)
    return Pair((view, augment_view(cv2.flip(view, 1), second)), (first, second))


def project_centres(other: CropParameters, crop: CropParameters, grid: Grid) -> Tensor:
    """Locates the centres of the regions of `crop` in `other`: x and y `[T, 2]`, NaN for those outside."""
    size: Size = crop.size
    x, y = compute_centres(torch.arange(grid[0] * grid[1]), grid, size).unbind(-1)
    x = size[1] - x if crop.flip else x
    x, y = x * crop.box.width / size[1] + crop.box.left, y * crop.box.height / size[0] + crop.box.top
    x, y = (x - other.box.left) / other.box.width, (y - other.box.top) / other.box.height
    x = 1 - x if other.flip else x
    outside = (x < 0) | (x >= 1) | (y < 0) | (y >= 1)
    positions = torch.stack([x * other.size[1], y * other.size[0]], dim=-1)
    return positions.masked_fill(outside[:, None], torch.nan)
