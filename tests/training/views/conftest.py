# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the image whose views are compared."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="package")
def image():
    """Returns smooth colours with some noise: every operation changes it, none saturates it."""
    rows, columns = np.mgrid[0:60, 0:80]
    waves = np.stack([np.sin(rows / 9), np.cos(columns / 7), np.sin((rows + columns) / 11)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 8, waves.shape)
    return Image.fromarray(np.clip(128 + 90 * waves + noise, 0, 255).astype(np.uint8))
