# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Applies the photometric operations, as drawn by `draw.py`, to all views of a batch at once on their device.

The workers then only decode, crop and resize, and a batch travels to the device as bytes. Nothing here draws, loops
over images or reads a value back from the device. Levels are truncated to integers after each operation, as in 8-bit
arithmetic.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from training.views.draw import BLUR_RADIUS, SOLARIZE_THRESHOLD, CropParameters, Jitter
from training.views.pixels import IMAGENET_MEAN, IMAGENET_STD


GRAY = (0.299, 0.587, 0.114)
TAPS = round(3 * BLUR_RADIUS[1])  # taps of the blur to each side of the centre
ORDER, FACTORS = slice(0, 4), slice(4, 8)
GRAYSCALE, BLUR, SOLARIZE = 8, 9, 10
PARAMETERS = 11  # of a view
# Plain numbers, because a compiler takes the comparison of a tensor with a member of an enumeration for False.
CONTRAST, SATURATION, HUE = int(Jitter.CONTRAST), int(Jitter.SATURATION), int(Jitter.HUE)
NEUTRAL = {Jitter.BRIGHTNESS: 1.0, Jitter.CONTRAST: 1.0, Jitter.SATURATION: 1.0, Jitter.HUE: 0.0}


def pack_parameters(crops: Sequence[CropParameters]) -> Tensor:
    """Returns the draws of N views as a tensor for [`augment`], float32 `[N, 11]`."""
    rows = []
    for crop in crops:
        jitter = {**dict(crop.jitter), **{op: f for op, f in NEUTRAL.items() if op not in dict(crop.jitter)}}
        order, factors = jitter.keys(), jitter.values()
        rows.append([*order, *factors, crop.grayscale, crop.blur_radius, crop.solarize])
    return torch.tensor(rows, dtype=torch.float32)


def make_statistics(device: torch.device | str) -> Tensor:
    """Returns mean and standard deviation of each channel in levels, `[2, 3, 1, 1]`, for [`augment`].

    They are made once: a number that is copied to a device in each step lets the host wait.
    """
    return (torch.tensor([IMAGENET_MEAN, IMAGENET_STD]).view(2, 3, 1, 1) * 255).to(device)


def augment(views: Tensor, parameters: Tensor, statistics: Tensor) -> Tensor:
    """Augments and normalises uint8 views `[N, 3, h, w]` with parameters `[N, 11]`; returns float32 `[N, 3, h, w]`."""
    columns = parameters[:, :, None, None, None]  # each `[N, 1, 1, 1]`
    pixels = jitter(views.float(), columns[:, ORDER], columns[:, FACTORS])
    pixels = torch.where(columns[:, GRAYSCALE] > 0, to_gray(pixels), pixels)
    pixels = blur(pixels, parameters[:, BLUR])
    flipped = (columns[:, SOLARIZE] > 0) & (pixels >= SOLARIZE_THRESHOLD)
    pixels = torch.where(flipped, 255 - pixels, pixels)
    mean, std = statistics
    return (pixels - mean) / std


def to_gray(pixels: Tensor) -> Tensor:
    """Converts `[N, 3, h, w]` to grey levels `[N, 1, h, w]`."""
    red, green, blue = pixels.unbind(1)
    return (GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue).round().unsqueeze(1)


def jitter(pixels: Tensor, order: Tensor, factors: Tensor) -> Tensor:
    """Applies the four operations to each view in the view's own order.

    Brightness, contrast and saturation are applied in two rounds, and the hue of all views is shifted between them: a
    view takes part in the first round up to its hue, and in the second round after it.
    """
    is_hue = order == HUE  # `[N, 4, 1, 1, 1]`
    hue = torch.where(is_hue, factors, 0.0).sum(dim=1)
    place = is_hue.to(torch.uint8).argmax(dim=1, keepdim=True)  # how many operations come before the hue
    slots = torch.arange(len(Jitter) - 1, device=pixels.device).view(1, -1, 1, 1, 1)
    others = slots + (slots >= place)
    order, factors = order.gather(1, others), factors.gather(1, others)
    rounds = [torch.where(slots < place, factors, 1.0), torch.where(slots < place, 1.0, factors)]
    for slot, factor in enumerate(rounds[0].unbind(1)):
        pixels = blend(pixels, order[:, slot], factor)
    pixels = shift_hue(pixels, hue)
    for slot, factor in enumerate(rounds[1].unbind(1)):
        pixels = blend(pixels, order[:, slot], factor)
    return pixels


def blend(pixels: Tensor, operation: Tensor, factor: Tensor) -> Tensor:
    """Changes brightness, contrast or saturation by blending with black, the mean grey or each pixel's grey.

    A factor of 1 changes nothing: all levels are whole numbers.
    """
    grey = to_gray(pixels)
    mean = (grey.mean(dim=(2, 3), keepdim=True) + 0.5).floor()
    base = torch.where(operation == CONTRAST, mean, torch.where(operation == SATURATION, grey, 0.0))
    return torch.lerp(base, pixels, factor).clamp(0, 255).floor()


def shift_hue(pixels: Tensor, factor: Tensor) -> Tensor:
    """Shifts the hue by `factor` of the full circle, in steps of 1 / 255; value and saturation stay the same."""
    red, green, blue = pixels.unbind(1)
    value, smallest = pixels.amax(dim=1), pixels.amin(dim=1)
    chroma = value - smallest
    divisor = torch.where(chroma == 0, 1.0, chroma)
    sextant = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sextant = sextant + 6 * (factor * 255).trunc().squeeze(1) / 255
    shifted = [
        value - chroma * (position := (offset + sextant) % 6).minimum(4 - position).clamp(0, 1) for offset in (5, 3, 1)
    ]
    return torch.where(factor == 0, pixels, torch.stack(shifted, dim=1).round())


def blur(pixels: Tensor, radius: Tensor) -> Tensor:
    """Blurs with a Gaussian of standard deviation `radius` `[N]` in pixels (0: none), repeating the border."""
    n, channels, height, width = pixels.shape
    offsets = torch.arange(-TAPS, TAPS + 1, device=pixels.device)
    kernel = torch.exp(-0.5 * (offsets / radius.clamp(min=1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    maps = F.pad(pixels, (TAPS, TAPS, TAPS, TAPS), mode="replicate").view(1, n * channels, height + 2 * TAPS, -1)
    maps = F.conv2d(maps, kernel[:, None, None, :], groups=n * channels)
    maps = F.conv2d(maps, kernel[:, None, :, None], groups=n * channels)
    return maps.view(n, channels, height, width).round()
