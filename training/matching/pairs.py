# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Two views of one image, of which it is known where each place of the first lies in the second.

    mirrored     the paper's pair (section 4.3): the image, and itself mirrored, recoloured and grey
    crops        two random crops, flips and nothing else: the colours agree
    recoloured   two random crops as the training has them, with jitter, blur and so on

Everything random is a function of the seed and the image's number.
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
from training.matching.measures import centres
from training.views.draw import (
    POLICIES,
    CropBox,
    CropParameters,
    CropRecipe,
    Draws,
    Photometry,
    draw_crop,
    draw_jitter,
    make_keyed_generator,
)
from training.views.pixels import augment_view, crop_view


SCALE = (0.4, 1.0)  # of the image's area, as the global crops of the training
RESIZED = 256 / 224  # shorter side of the image / side of the central crop
MIRRORED, CROPS, RECOLOURED = "mirrored", "crops", "recoloured"
POLICY = {CROPS: POLICIES["basic"], RECOLOURED: POLICIES["dino"]}
PAIRS = (MIRRORED, *POLICY)


class Pair(NamedTuple):
    """Two uint8 views [h, w, 3], and where each lies in what they were cut from."""

    views: tuple[np.ndarray, np.ndarray]
    places: tuple[CropParameters, CropParameters]

    def pixels(self, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """Normalised, [2, 3, h, w]."""
        stacked = torch.from_numpy(np.stack(self.views)).permute(0, 3, 1, 2) / 255
        return (stacked - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    def truth(self, grid: Grid) -> Tensor:
        """Where the centre of each region of the first view lies in the second: x and y [T, 2], NaN if outside."""
        return positions_in(self.places[1], self.places[0], grid)


def make_pair(name: str, image: Image.Image, side: int, seed: int, number: int) -> Pair:
    """The pair `name`, one of PAIRS, of an RGB image, in square views of `side` pixels."""
    if name == MIRRORED:
        return mirrored_pair(central_crop(image, side), make_keyed_generator(seed, 0, number, 0, draws=Draws.MATCHING))
    policy, first = POLICY[name], 1 + 2 * list(POLICY).index(name)
    pixels, views, places = np.array(image), [], []
    for crop, photometry in enumerate((policy.global_1, policy.global_2)):
        generator = make_keyed_generator(seed, 0, number, first + crop, draws=Draws.MATCHING)
        place = draw_crop(generator, image.size, CropRecipe((side, side), SCALE, photometry))
        views.append(augment_view(cv2.merge(crop_view(pixels, image.size, place)), place))
        places.append(place)
    return Pair((views[0], views[1]), (places[0], places[1]))


def central_crop(image: Image.Image, side: int) -> np.ndarray:
    """The evaluation transform at `side` pixels: at 224 the shorter side becomes 256, and the middle stays."""
    shorter = round(side * RESIZED)
    width, height = (shorter * length // min(image.size) for length in image.size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized.crop((left, top, left + side, top + side)))


def mirrored_pair(view: np.ndarray, generator: np.random.Generator) -> Pair:
    """Flipped; colour jitter with probability 0.8; always grey."""
    size, box = view.shape[:2], CropBox(0, 0, *view.shape[:2])
    jitter = draw_jitter(generator, Photometry(jitter=0.8))
    first = CropParameters(size, box, flip=False, jitter=(), grayscale=False, blur_radius=0.0, solarize=False)
    second = CropParameters(size, box, flip=True, jitter=jitter, grayscale=True, blur_radius=0.0, solarize=False)
    return Pair((view, augment_view(cv2.flip(view, 1), second)), (first, second))


def positions_in(other: CropParameters, crop: CropParameters, grid: Grid) -> Tensor:
    """Where the centres of the regions of `crop` lie in `other`, as `Pair.truth`."""
    size: Size = crop.size
    x, y = centres(torch.arange(grid[0] * grid[1]), grid, size).unbind(-1)
    x = size[1] - x if crop.flip else x
    x, y = x * crop.box.width / size[1] + crop.box.left, y * crop.box.height / size[0] + crop.box.top
    x, y = (x - other.box.left) / other.box.width, (y - other.box.top) / other.box.height
    x = 1 - x if other.flip else x
    outside = (x < 0) | (x >= 1) | (y < 0) | (y >= 1)
    positions = torch.stack([x * other.size[1], y * other.size[0]], dim=-1)
    return positions.masked_fill(outside[:, None], torch.nan)
