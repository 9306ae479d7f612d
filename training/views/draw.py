# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws the multi-crop views of an image: 2 global crops and any number of local ones (arXiv 2106.09785, section 3).

Each view is a random resized crop, which may be flipped, followed by colour jitter, grayscale, Gaussian blur and
solarisation. The policy `augmentation` sets how often and how strongly these are applied. The sizes of the crops and
their shares of the image's area are separate options.

    dino    the policy of every published EsViT model (`dino_aug` of microsoft/esvit, MIT)
    mocov2  the policy of MoCo v2 (arXiv 2003.04297): the same for all crops, with more saturation and no solarisation.
            The original has only its name. MoCo v2's own crops are `global_crops_scale=(0.2, 1.0)` without local ones.
    basic   crop and flip only; the original has only its name
    deit    RandAugment and random erasing, as timm's `rand-m9-mstd0.5-inc1` and `pixel` with p = 0.25, with crops of
            (0.08, 1.0). The original meant to call them (`deit_aug`) but failed. The erased pixels are noise, so the
            workers apply the whole policy.

This module draws every random number, as a pure function of (seed, epoch, position in the stream, crop). The modules
that apply the draws draw nothing: `pixels.py` makes the views on the CPU, either completely or up to the crop, and
`on_device.py` does the rest on the device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np

from modeling_esvit.errors import EsViTError


ASPECT_RATIO = (3 / 4, 4 / 3)
FLIP_PROBABILITY = 0.5
SOLARIZE_THRESHOLD = 128
BLUR_RADIUS = (0.1, 2.0)
CropSize = int | Sequence[int]


class ViewOptionError(EsViTError, ValueError):
    """Raised when an option of the views is out of its range."""


class Jitter(IntEnum):
    """Names the operations of the colour jitter, with torchvision's numbers."""

    BRIGHTNESS = 0
    CONTRAST = 1
    SATURATION = 2
    HUE = 3


class Operation(IntEnum):
    """Names the operations of RandAugment, in timm's order."""

    AUTO_CONTRAST = 0
    EQUALIZE = 1
    INVERT = 2
    ROTATE = 3
    POSTERIZE = 4
    SOLARIZE = 5
    SOLARIZE_ADD = 6
    COLOR = 7
    CONTRAST = 8
    BRIGHTNESS = 9
    SHARPNESS = 10
    SHEAR_X = 11
    SHEAR_Y = 12
    TRANSLATE_X = 13
    TRANSLATE_Y = 14


NUM_OPERATIONS, OPERATION_PROBABILITY = 2, 0.5
MAGNITUDE, MAGNITUDE_STD = 0.9, 0.05  # of largest 1
ERASED_SHARE, ERASED_RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)
DINO_JITTER = {
    Jitter.BRIGHTNESS: (0.6, 1.4),
    Jitter.CONTRAST: (0.6, 1.4),
    Jitter.SATURATION: (0.8, 1.2),
    Jitter.HUE: (-0.1, 0.1),
}


class PhotometricAugmentation(NamedTuple):
    """Holds the probabilities of the operations on colours and sharpness, and the ranges of the jitter's factors."""

    jitter: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    solarize: float = 0.0
    jitter_ranges: dict[Jitter, tuple[float, float]] = DINO_JITTER
    rand_augment: bool = False
    erase: float = 0.0


class Policy(NamedTuple):
    """Holds what is applied to the first global crop, to the second one, and to the local crops."""

    global_1: PhotometricAugmentation
    global_2: PhotometricAugmentation
    local: PhotometricAugmentation


DEIT = PhotometricAugmentation(rand_augment=True, erase=0.25)
MOCO = PhotometricAugmentation(
    jitter=0.8, grayscale=0.2, blur=0.5, jitter_ranges={**DINO_JITTER, Jitter.SATURATION: (0.6, 1.4)}
)
POLICIES = {
    "dino": Policy(
        PhotometricAugmentation(jitter=0.8, grayscale=0.2, blur=1.0),
        PhotometricAugmentation(jitter=0.8, grayscale=0.2, blur=0.1, solarize=0.2),
        PhotometricAugmentation(jitter=0.8, grayscale=0.2, blur=0.5),
    ),
    "mocov2": Policy(MOCO, MOCO, MOCO),
    "basic": Policy(PhotometricAugmentation(), PhotometricAugmentation(), PhotometricAugmentation()),
    "deit": Policy(DEIT, DEIT, DEIT),
}


class Draws(IntEnum):
    """Names the purposes of keyed generators. Each is the last word of a counter, so no two purposes share a stream."""

    VIEW = 0
    ORDER = 1
    WINDOW = 2
    MIXING = 3
    MATCHING = 4


class ViewKey(NamedTuple):
    """Identifies the draws of one sample. Its views depend on this key and on the image, and on nothing else."""

    seed: int
    epoch: int
    position: int


class CropRecipe(NamedTuple):
    """Defines the distribution of one crop."""

    size: tuple[int, int]  # (h, w) of the view
    scale: tuple[float, float]  # share of the image's area
    photometry: PhotometricAugmentation


class CropBox(NamedTuple):
    """Marks a rectangle of an image or a view, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Erased(NamedTuple):
    """Marks a rectangle of the view that becomes noise after the normalisation, with the key of the noise."""

    box: CropBox
    key: int


@dataclass(frozen=True, slots=True)
class CropParameters:
    """Holds everything that was drawn for one crop. Together with the image it determines the view."""

    size: tuple[int, int]  # (h, w) of the view
    box: CropBox
    flip: bool
    jitter: tuple[tuple[Jitter, float], ...]  # operations with their factors, in the order of application
    grayscale: bool
    blur_radius: float  # standard deviation in pixels of the view; 0: none
    solarize: bool
    operations: tuple[tuple[Operation, float], ...] = ()  # RandAugment's, with their arguments; applied first
    erased: Erased | None = None


@dataclass(frozen=True)
class ViewOptions:
    """Sets the sizes, numbers and area shares of the crops, and the policy. A size is an int (square) or (h, w).

    Set i of local crops has `local_crops_numbers[i]` crops of `local_crop_sizes[i]`; all sets share one scale range.
    Empty sequences, or numbers of 0, mean no local crops.

    Raises:
        ViewOptionError: an option is out of its range.
    """

    global_crop_size: CropSize = 224
    local_crop_sizes: Sequence[CropSize] = (96,)
    local_crops_numbers: Sequence[int] = (8,)
    global_crops_scale: tuple[float, float] = (0.4, 1.0)
    local_crops_scale: tuple[float, float] = (0.05, 0.4)
    augmentation: str = "dino"

    def __post_init__(self) -> None:
        if len(self.local_crop_sizes) != len(self.local_crops_numbers):
            raise ViewOptionError(
                f"local_crop_sizes {list(self.local_crop_sizes)} and local_crops_numbers "
                f"{list(self.local_crops_numbers)} must be equally long: one size and one number per set of crops."
            )
        for number in self.local_crops_numbers:
            if number < 0:
                raise ViewOptionError(f"local_crops_numbers {list(self.local_crops_numbers)}: {number} is negative.")
        for name in ("global_crops_scale", "local_crops_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ViewOptionError(
                    f"{name} is {(low, high)}; it must be two shares of the area, 0 < low <= high <= 1."
                )
        for size in (self.global_crop_size, *self.local_crop_sizes):
            _height_width(size)
        if self.augmentation not in POLICIES:
            raise ViewOptionError(f"augmentation {self.augmentation!r} is none of {', '.join(POLICIES)}.")

    @cached_property
    def groups(self) -> tuple[tuple[CropRecipe, ...], ...]:
        """Returns the crops, grouped by set: the two global ones, then each set of local ones."""
        size, scale, policy = _height_width(self.global_crop_size), self.global_crops_scale, POLICIES[self.augmentation]
        global_crops = (CropRecipe(size, scale, policy.global_1), CropRecipe(size, scale, policy.global_2))
        local_crops = (
            (CropRecipe(_height_width(size), self.local_crops_scale, policy.local),) * number
            for size, number in zip(self.local_crop_sizes, self.local_crops_numbers, strict=True)
            if number > 0
        )
        return global_crops, *local_crops


def _height_width(size: CropSize) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ViewOptionError(f"crop size {size} is not positive.")
    return height, width


def make_keyed_generator(
    seed: int, epoch: int, position: int = 0, crop: int = 0, *, draws: Draws = Draws.VIEW
) -> np.random.Generator:
    """Returns a generator whose output is a pure function of the arguments, each in 0 .. 2**64 - 1.

    Philox is a bijection of its counter for each key. The key is (seed, epoch), and the upper three words of the
    counter are (crop, position, purpose), so the streams of two different tuples start at least 2**64 blocks apart and
    never overlap.
    """
    key = np.array([seed, epoch], dtype=np.uint64)
    counter = np.array([0, crop, position, draws], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def draw_views(key: ViewKey, image_size: tuple[int, int], options: ViewOptions) -> list[CropParameters]:
    """Draws all crops of one sample, in their order. `image_size` is (width, height), as in PIL."""
    crops = [recipe for group in options.groups for recipe in group]
    return [draw_crop(make_keyed_generator(*key, crop), image_size, recipe) for crop, recipe in enumerate(crops)]


def draw_crop(generator: np.random.Generator, image_size: tuple[int, int], recipe: CropRecipe) -> CropParameters:
    """Draws one crop from the distribution that `recipe` defines."""
    photometry = recipe.photometry
    return CropParameters(
        size=recipe.size,
        box=draw_box(generator, image_size, recipe.scale),
        flip=generator.random() < FLIP_PROBABILITY,
        jitter=draw_jitter(generator, photometry),
        grayscale=generator.random() < photometry.grayscale,
        blur_radius=generator.uniform(*BLUR_RADIUS) if generator.random() < photometry.blur else 0.0,
        solarize=generator.random() < photometry.solarize,
        operations=draw_operations(generator) if photometry.rand_augment else (),
        erased=draw_erased(generator, recipe.size) if generator.random() < photometry.erase else None,
    )


def draw_box(generator: np.random.Generator, image_size: tuple[int, int], scale: tuple[float, float]) -> CropBox:
    """Draws the box of torchvision's `RandomResizedCrop`: a uniform area share in `scale`, a log-uniform aspect ratio.

    If ten draws do not fit into the image, returns the largest central box with an allowed aspect ratio.
    """
    image_width, image_height = image_size
    for _ in range(10):
        area = image_width * image_height * generator.uniform(*scale)
        ratio = math.exp(generator.uniform(math.log(ASPECT_RATIO[0]), math.log(ASPECT_RATIO[1])))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= image_width and 0 < height <= image_height:
            top = int(generator.integers(image_height - height + 1))
            left = int(generator.integers(image_width - width + 1))
            return CropBox(top, left, height, width)
    return make_central_box(image_size)


def make_central_box(image_size: tuple[int, int]) -> CropBox:
    """Returns the largest central box with an allowed aspect ratio: the whole image unless it is too narrow or wide."""
    image_width, image_height = width, height = image_size
    if image_width / image_height < ASPECT_RATIO[0]:
        height = round(width / ASPECT_RATIO[0])
    elif image_width / image_height > ASPECT_RATIO[1]:
        width = round(height * ASPECT_RATIO[1])
    return CropBox((image_height - height) // 2, (image_width - width) // 2, height, width)


def draw_jitter(
    generator: np.random.Generator, photometry: PhotometricAugmentation
) -> tuple[tuple[Jitter, float], ...]:
    """Draws the order and the factors of the four operations, or none of them."""
    if generator.random() >= photometry.jitter:
        return ()
    order = [Jitter(index) for index in generator.permutation(len(Jitter)).tolist()]
    return tuple((operation, generator.uniform(*photometry.jitter_ranges[operation])) for operation in order)


def draw_operations(generator: np.random.Generator) -> tuple[tuple[Operation, float], ...]:
    """Draws two operations of RandAugment, which may be the same. Each is dropped with probability 1/2."""
    chosen = [Operation(index) for index in generator.integers(len(Operation), size=NUM_OPERATIONS).tolist()]
    return tuple(
        (operation, draw_argument(operation, generator))
        for operation in chosen
        if generator.random() < OPERATION_PROBABILITY
    )


def draw_argument(operation: Operation, generator: np.random.Generator) -> float:
    """Draws a magnitude in [0, 1] and returns what it means to the operation, by timm's "increasing" scale.

    The unit depends on the operation: degrees, bits, a level, an addend, a factor or a share of the side.
    """
    magnitude = min(max(generator.normal(MAGNITUDE, MAGNITUDE_STD), 0.0), 1.0)
    signed = magnitude if generator.random() < 0.5 else -magnitude
    if operation in (Operation.AUTO_CONTRAST, Operation.EQUALIZE, Operation.INVERT):
        return 0.0
    if operation == Operation.ROTATE:
        return 30 * signed
    if operation == Operation.POSTERIZE:
        return 4 - int(4 * magnitude)
    if operation == Operation.SOLARIZE:
        return 256 - int(256 * magnitude)
    if operation == Operation.SOLARIZE_ADD:
        return int(110 * magnitude)
    if operation in (Operation.SHEAR_X, Operation.SHEAR_Y):
        return 0.3 * signed
    if operation in (Operation.TRANSLATE_X, Operation.TRANSLATE_Y):
        return 0.45 * signed
    return max(0.1, 1 + 0.9 * signed)


def draw_erased(generator: np.random.Generator, size: tuple[int, int]) -> Erased | None:
    """Draws the rectangle of timm's `RandomErasing`. Returns None if none of ten draws fits into the view."""
    view_height, view_width = size
    for _ in range(10):
        area = view_height * view_width * generator.uniform(*ERASED_SHARE)
        ratio = math.exp(generator.uniform(math.log(ERASED_RATIO[0]), math.log(ERASED_RATIO[1])))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if height < view_height and width < view_width:
            top = int(generator.integers(view_height - height + 1))
            left = int(generator.integers(view_width - width + 1))
            return Erased(CropBox(top, left, height, width), int(generator.integers(2**63)))
    return None


def make_noise(erased: Erased) -> np.ndarray:
    """Returns standard normal noise, float32 `[3, height, width]`, as a function of the key."""
    generator = np.random.Generator(np.random.Philox(key=erased.key))
    return generator.standard_normal((3, erased.box.height, erased.box.width), dtype=np.float32)
