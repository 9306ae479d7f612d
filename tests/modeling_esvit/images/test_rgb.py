# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that conversions in strips give what one conversion of the whole image gives."""

import numpy as np
import pytest
from PIL import Image

from modeling_esvit.images import rgb
from modeling_esvit.images.rgb import convert_to_rgb


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "I", "F"])
def test_strips_do_not_matter(mode, monkeypatch):
    values = np.random.default_rng(0).integers(0, 256, (13, 7, 4), dtype=np.uint8)
    image = Image.fromarray(values)
    if mode == "LA":
        image = image.convert("LA")
    elif mode != "RGBA":
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray((values[..., 0].astype(kind) * (1 / 255 if mode == "F" else 257)).astype(kind))
    assert image.mode == mode
    whole = np.asarray(convert_to_rgb(image))
    monkeypatch.setattr(rgb, "STRIP", 20)
    assert np.array_equal(np.asarray(convert_to_rgb(image)), whole)
    if mode not in ("RGBA", "LA"):
        assert np.array_equal(whole[..., 1], values[..., 0])
