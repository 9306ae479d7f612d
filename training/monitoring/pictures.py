# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Draws the views of the first batch of a run."""

import math

import torch
from PIL import Image, ImageDraw, ImageFont

from training.views.pixels import IMAGENET_MEAN, IMAGENET_STD


GAP = 4  # pixels between views
TITLE = 16  # height of the line above
SMALLEST = 128  # smaller views are enlarged, by a whole number, to about this
BACKGROUND = (200, 220, 240)  # not a grey: views may be white, black, or any grey


def draw_views(groups: list[torch.Tensor], batch: int, images: int = 8) -> Image.Image:
    """Draws normalised views, in groups `[crops * B, 3, h, w]`, as a table.

    Each of the first images has a row: its two global crops, then each set of local ones, under their number and size.
    """
    tallest = max(group.shape[2] for group in groups)
    scale = max(1, SMALLEST // tallest)
    stacked = [max(1, tallest // group.shape[2]) for group in groups]
    height = max(high * (scale * group.shape[2] + GAP) for high, group in zip(stacked, groups, strict=True))
    height += GAP  # so that images stand apart more than their crops
    columns = [
        draw_set(group, batch, min(images, batch), high, height, scale)
        for high, group in zip(stacked, groups, strict=True)
    ]
    picture = Image.new("RGB", (sum(column.width for column in columns), columns[0].height), BACKGROUND)
    left = 0
    for column in columns:
        picture.paste(column, (left, 0))
        left += column.width
    return picture


def draw_set(group: torch.Tensor, batch: int, images: int, stacked: int, row_height: int, scale: int) -> Image.Image:
    """Draws one set of crops: a row of `row_height` pixels for each image, with `stacked` crops above one another."""
    crops, (height, width) = len(group) // batch, group.shape[2:]
    title = f"{crops} crop{'s' * (crops > 1)} of {width} px"
    wide = math.ceil(crops / stacked)
    size = (max(wide * (scale * width + GAP), round(load_font().getlength(title)) + GAP), TITLE + images * row_height)
    picture = Image.new("RGB", size, BACKGROUND)
    ImageDraw.Draw(picture).text((0, 1), title, "black", load_font())
    for image in range(images):
        for crop in range(crops):
            down, right = divmod(crop, wide)
            corner = (right * (scale * width + GAP), TITLE + image * row_height + down * (scale * height + GAP))
            view = to_image(group[crop * batch + image])
            picture.paste(view.resize((scale * width, scale * height), Image.Resampling.NEAREST), corner)
    return picture


def load_font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=12)


def to_image(view: torch.Tensor) -> Image.Image:
    """Turns a normalised view `[3, h, w]` into an image."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    levels = ((view.float().cpu() * std + mean) * 255).round().clamp(0, 255).byte()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())
