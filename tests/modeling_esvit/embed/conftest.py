# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the model and the images that tests of `embed` share."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from modeling_esvit import EsViTConfig, EsViTModel


NUMBER = 11


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model")
    config = EsViTConfig(image_size=64, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 2, 4], window_size=4)
    EsViTModel(config).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    (path / "more").mkdir()
    generator = np.random.default_rng(0)
    for index in range(NUMBER):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        image = coarse.resize((70 + index, 90), Image.Resampling.BICUBIC)
        image.save(path / ("more" if index % 2 else ".") / f"{index:02d}.png")
    (path / "notes.md").write_text("not an image")
    return path


@pytest.fixture(scope="session")
def by_hand(folder, images):
    """name -> (view, regions)."""
    model, processor = EsViTModel.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)
    result = {}
    for path in sorted(images.rglob("*.png")):
        pixels = processor(Image.open(path), return_tensors="pt").pixel_values
        with torch.no_grad():
            output = model(pixels)
        result[str(path)] = (output.pooler_output[0].numpy(), output.last_hidden_state[0].numpy())
    return result
