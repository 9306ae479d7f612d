# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes views as the original does, by torchvision on PIL images; ours are compared to them, in result and speed."""

from io import BytesIO

import torch
from PIL import Image, ImageFilter
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from training.views.draw import CropParameters, Jitter, ViewKey, ViewOptions, draw_views


MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
JITTER = {
    Jitter.BRIGHTNESS: F.adjust_brightness,
    Jitter.CONTRAST: F.adjust_contrast,
    Jitter.SATURATION: F.adjust_saturation,
    Jitter.HUE: F.adjust_hue,
}


def pil_crop(image: Image.Image, crop: CropParameters) -> Image.Image:
    bicubic = InterpolationMode.BICUBIC
    view = F.resized_crop(image, *crop.box, size=list(crop.size), interpolation=bicubic, antialias=True)
    return F.horizontal_flip(view) if crop.flip else view


def pil_augment(view: Image.Image, crop: CropParameters) -> Image.Image:
    for operation, factor in crop.jitter:
        view = JITTER[operation](view, factor)
    if crop.grayscale:
        view = F.rgb_to_grayscale(view, num_output_channels=3)
    if crop.blur_radius > 0:
        view = view.filter(ImageFilter.GaussianBlur(crop.blur_radius))
    return F.solarize(view, 128) if crop.solarize else view


def pil_view(image: Image.Image, crop: CropParameters) -> torch.Tensor:
    """Makes one view, normalised: float32 `[3, h, w]`."""
    view = F.pil_to_tensor(pil_augment(pil_crop(image, crop), crop))
    return F.normalize(F.to_dtype(view, torch.float32, scale=True), MEAN, STD)


def pil_views(file: bytes, key: ViewKey, options: ViewOptions) -> list[torch.Tensor]:
    """Makes all views of an encoded file."""
    image = Image.open(BytesIO(file)).convert("RGB")
    return [pil_view(image, crop) for crop in draw_views(key, image.size, options)]
