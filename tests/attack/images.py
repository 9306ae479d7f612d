# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Attacks `decode` by images of all formats that are read, each damaged at one place."""

import io
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from modeling_esvit.images.decoding import DecodingOptions, Record, decode
from modeling_esvit.images.formats import list_image_formats
from tests.attack.mutations import mutate_bytes
from tests.attack.outcomes import Attack, Surface, WrongError


OPTIONS = DecodingOptions(max_pixels=2**20)
MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F", "YCbCr")
VARIANTS: dict[str, list[dict]] = {
    "JPEG": [{}, {"progressive": True}, {"exif": Image.Exif()}],
    "TIFF": [{"compression": name} for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits")],
    "WEBP": [{}, {"lossless": True}],
}


def write_images() -> list[bytes]:
    """Returns small images in every format, mode and variant that Pillow writes."""
    Image.init()
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (17, 24, 4), dtype=np.uint8), "RGBA")
    found = []
    for name in [each for each in list_image_formats() if each in Image.SAVE]:
        for mode in MODES:
            for variant in VARIANTS.get(name, [{}]):
                file = io.BytesIO()
                try:
                    convert(pixels, mode).save(file, name, **variant)
                except (OSError, ValueError, KeyError, TypeError):  # this format has no such pixels
                    continue
                found.append(file.getvalue())
    return found


def convert(image: Image.Image, mode: str) -> Image.Image:
    return Image.fromarray(np.array(image.convert("I")).astype(np.uint16)) if mode == "I;16" else image.convert(mode)


def prepare(folder: Path) -> Attack:
    whole = write_images()
    path = folder / "image"

    def attack(random: Random) -> None:
        content = mutate_bytes(random, random.choice(whole), random.choice(whole))
        if random.random() < 0.1:
            path.write_bytes(content)
        image = decode(Record(str(path) if random.random() < 0.1 else content, None, "image", OPTIONS))
        if image.mode != "RGB" or not 0 < image.width * image.height <= OPTIONS.max_pixels:
            raise WrongError(f"an image of {image.mode} and {image.size}")

    path.write_bytes(whole[0])
    return attack


SURFACE = Surface("images of all formats, through `decode`", prepare, 2)
