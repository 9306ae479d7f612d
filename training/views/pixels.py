# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes the pixels of a view on the CPU: crop, resize, flip, colour jitter, grayscale, blur, solarise, normalise.

Everything before the normalisation is 8-bit arithmetic, as in the original (microsoft/esvit, MIT), which calls
torchvision on PIL images. Here, torch and OpenCV do the same operations in a fifth of the time. The results differ by
rounding, one or two grey levels. Only the blur differs by more: Pillow applies three box filters, this is a Gaussian.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from training.views.draw import SOLARIZE_THRESHOLD, CropBox, CropParameters, Jitter, make_noise
from training.views.rand_augment import transform


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

LEVELS = np.arange(256, dtype=np.float32)
SOLARIZED = np.where(LEVELS >= SOLARIZE_THRESHOLD, 255 - LEVELS, LEVELS).astype(np.uint8)
# One table for each channel, from the grey level to the normalised value.
NORMALISED = [
    ((LEVELS / 255 - mean) / std).astype(np.float32) for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)
]

cv2.setNumThreads(0)  # each worker has one core, and the results must not depend on the number of cores


def write_views(
    image: Image.Image, full_size: tuple[int, int], crops: Sequence[CropParameters], slots: Sequence[torch.Tensor]
) -> None:
    """Writes the views of an RGB image into `slots`.

    Args:
        image: the image, which may have been decoded at a reduced size.
        full_size: (width, height) of the full image, to which the boxes of `crops` refer.
        crops: the draws.
        slots: one tensor `[3, h, w]` for each view. A float32 tensor receives the finished, normalised view. A uint8
            tensor receives the view before the photometric operations, which `on_device.py` then applies (it does not
            know those of the policy `deit`).
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
                slot.numpy()[:, top : top + height, left : left + width] = make_noise(crop.erased)


def crop_view(pixels: np.ndarray, full_size: tuple[int, int], crop: CropParameters) -> list[np.ndarray]:
    """Cuts out, resizes (bicubic, antialiased) and flips a box of uint8 `[H, W, 3]`; returns 3 channels `[h, w]`."""
    top, left, height, width = scale_box(crop.box, full_size, pixels.shape)
    box = torch.from_numpy(pixels[top : top + height, left : left + width])
    view = F.interpolate(box.permute(2, 0, 1)[None], size=crop.size, mode="bicubic", antialias=True)
    channels = list(view[0].numpy())
    return [cv2.flip(channel, 1) for channel in channels] if crop.flip else channels


def scale_box(box: CropBox, full_size: tuple[int, int], shape: tuple[int, ...]) -> CropBox:
    """Returns a box of the full image in the coordinates of the reduced image of `shape` (height, width, ...)."""
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


def choose_sufficient_size(full_size: tuple[int, int], crops: Sequence[CropParameters]) -> tuple[int, int]:
    """Returns the smallest (width, height) to which a decoder may reduce the image without enlarging any view.

    JPEG decoders halve sizes, so this helps only when every box has at least twice the side lengths of its view.
    """
    surplus = min(min(crop.box.height / crop.size[0], crop.box.width / crop.size[1]) for crop in crops)
    width, height = full_size
    return (math.ceil(width / surplus), math.ceil(height / surplus)) if surplus > 1 else full_size


def augment_view(view: np.ndarray, crop: CropParameters) -> np.ndarray:
    """Applies the photometric operations to uint8 `[h, w, 3]`; returns the same type and shape."""
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
    """Returns level + factor * (view - level), clipped to 0 .. 255 and truncated to whole levels as Pillow does."""
    return cv2.LUT(view, np.clip(level + factor * (LEVELS - level), 0, 255).astype(np.uint8))


def adjust_brightness(view: np.ndarray, factor: float) -> np.ndarray:
    return blend_with(0.0, view, factor)


def adjust_contrast(view: np.ndarray, factor: float) -> np.ndarray:
    """Scales the contrast about the mean grey level of the view."""
    mean = cv2.mean(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY))[0]
    return blend_with(math.floor(mean + 0.5), view, factor)


def adjust_saturation(view: np.ndarray, factor: float) -> np.ndarray:
    """Scales the saturation about the grey level of each pixel."""
    gray = cv2.cvtColor(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(view, factor, gray, 1 - factor, -0.5)  # OpenCV rounds, Pillow truncates


def adjust_hue(view: np.ndarray, factor: float) -> np.ndarray:
    """Shifts the hue by `factor` of the full circle, in steps of 1 / 256."""
    hsv = cv2.cvtColor(view, cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(int(factor * 255) % 256)  # wraps round
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)


JITTER = {
    Jitter.BRIGHTNESS: adjust_brightness,
    Jitter.CONTRAST: adjust_contrast,
    Jitter.SATURATION: adjust_saturation,
    Jitter.HUE: adjust_hue,
}
