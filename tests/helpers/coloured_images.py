# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes images whose classes are colours, which any network tells apart."""

from pathlib import Path

import numpy as np
from PIL import Image


COLOURS = {"blue": (40, 60, 200), "green": (60, 180, 70), "red": (200, 50, 40)}


def write_coloured_images(folder: Path, colours: dict[str, tuple[int, int, int]], count: int, seed: int) -> Path:
    """Writes `count` noisy images of each colour, a class, in a folder of its name."""
    rng = np.random.default_rng(seed)
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.clip(rng.normal(colour, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder
