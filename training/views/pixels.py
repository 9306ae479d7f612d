# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The pixels of a view, on the CPU: crop, resize, flip, colour jitter, grayscale, blur, solarize, normalise.

Everything before the normalisation is 8-bit arithmetic, as in the original (microsoft/esvit, MIT), which calls
torchvision on PIL images. The same operations by torch's and OpenCV's vector code take a fifth of the time and differ
from it by rounding: a grey level or two, but for the blur, where Pillow's is three box filters and this is a Gaussian.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from training.views.draw import SOLARIZE_THRESHOLD, CropBox, CropParameters, Jitter, noise
from training.views.rand_augment import transform


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

LEVELS = np.arange(256, dtype=np.float32)
SOLARIZED = np.where(LEVELS >= SOLARIZE_THRESHOLD, 255 - LEVELS, LEVELS).astype(np.uint8)
# One table a channel: grey level -> normalised value.
NORMALISED = [
    ((LEVELS / 255 - mean) / std).astype(np.float32) for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)
]

cv2.setNumThreads(0)  # each worker has one core; and results must not depend on their number


def write_views(
    image: Image.Image, full_size: tuple[int, int], crops: Sequence[CropParameters], slots: Sequence[torch.Tensor]
) -> None:
    """The views of an RGB image.

    Args:
        image: the pixels, perhaps decoded at a fraction of their number.
        full_size: (width, height) that the boxes of `crops` refer to.
        crops: what was drawn.
        slots: where view i goes, `[3, h, w]`. A float32 slot gets the normalised view, a uint8 one the view as it is
            before the photometric operations, which `augmentation` does on a device (but not those of `deit`).
    """
    pixels = np.array(image)
    for crop, slot in zip(crops, slots, strict=True):
        channels = crop_view(pixels, full_size, crop)
        if slot.dtype == torch.uint8:
            slot.numpy()[:] = channels
        else:
            view = augment_view(cv2.merge(channels), crop)
            for plane, channel, table in zip(slot.numpy(), cv2.split(view), NORMALISED, strict=True):
                cv2.LUT(channel, table, plane)
            if crop.erased is not None:
                top, left, height, width = crop.erased.box
                slot.numpy()[:, top : top + height, left : left + width] = noise(crop.erased)


def crop_view(pixels: np.ndarray, full_size: tuple[int, int], crop: CropParameters) -> list[np.ndarray]:
    """uint8 `[H, W, 3]` -> the three channels `[h, w]`: antialiased bicubic resize of the box, then the flip."""
    top, left, height, width = scaled_box(crop.box, full_size, pixels.shape)
    box = torch.from_numpy(pixels[top : top + height, left : left + width])
    view = F.interpolate(box.permute(2, 0, 1)[None], size=crop.size, mode="bicubic", antialias=True)
    channels = list(view[0].numpy())
    return [cv2.flip(channel, 1) for channel in channels] if crop.flip else channels


def scaled_box(box: CropBox, full_size: tuple[int, int], shape: tuple[int, ...]) -> CropBox:
    """A box of the full image in the pixels of a reduced one."""
    height, width = shape[:2]
    if (width, height) == full_size:
        return box
    vertical, horizontal = height / full_size[1], width / full_size[0]
    top = min(round(box.top * vertical), height - 1)
    left = min(round(box.left * horizontal), width - 1)
    return CropBox(
        top,
        left,
        max(1, min(round(box.height * vertical), height - top)),
        max(1, min(round(box.width * horizontal), width - left)),
    )


def sufficient_size(full_size: tuple[int, int], crops: Sequence[CropParameters]) -> tuple[int, int]:
    """The smallest (width, height) that a decoder may reduce the image to: no box gets fewer pixels than its view, so that
    every side of every box must have twice the pixels of the view before there is anything to gain.
    """
    surplus = min(min(crop.box.height / crop.size[0], crop.box.width / crop.size[1]) for crop in crops)
    width, height = full_size
    return (math.ceil(width / surplus), math.ceil(height / surplus)) if surplus > 1 else full_size


def augment_view(view: np.ndarray, crop: CropParameters) -> np.ndarray:
    """Photometric operations: uint8 `[h, w, 3]` -> the same."""
    for name, argument in crop.operations:
        view = transform(view, name, argument)
    for operation, factor in crop.jitter:
        view = JITTER[operation](view, factor)
    if crop.grayscale:
        view = cv2.cvtColor(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if crop.blur_radius > 0:
        view = cv2.GaussianBlur(view, (0, 0), crop.blur_radius, borderType=cv2.BORDER_REPLICATE)
    return cv2.LUT(view, SOLARIZED) if crop.solarize else view


def blend_with(level: float, view: np.ndarray, factor: float) -> np.ndarray:
    """level + factor * (view - level), clipped, and cut off to whole levels as Pillow does."""
    return cv2.LUT(view, np.clip(level + factor * (LEVELS - level), 0, 255).astype(np.uint8))


def adjust_brightness(view: np.ndarray, factor: float) -> np.ndarray:
    return blend_with(0.0, view, factor)


def adjust_contrast(view: np.ndarray, factor: float) -> np.ndarray:
    """About the mean grey level of the view."""
    mean = cv2.mean(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY))[0]
    return blend_with(math.floor(mean + 0.5), view, factor)


def adjust_saturation(view: np.ndarray, factor: float) -> np.ndarray:
    """About the grey level of each pixel."""
    gray = cv2.cvtColor(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(view, factor, gray, 1 - factor, -0.5)  # rounds; Pillow cuts off


def adjust_hue(view: np.ndarray, factor: float) -> np.ndarray:
    """By `factor` of the whole circle, in steps of 1 / 256."""
    hsv = cv2.cvtColor(view, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(int(factor * 255) % 256)  # wraps round
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


JITTER = {
    Jitter.BRIGHTNESS: adjust_brightness,
    Jitter.CONTRAST: adjust_contrast,
    Jitter.SATURATION: adjust_saturation,
    Jitter.HUE: adjust_hue,
}
