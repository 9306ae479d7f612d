# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Where tokens lie: a token's pixels are those that its embedding reads."""

import pytest
import torch
from transformers import AutoModel, ConvNextV2Config, Dinov2Config, SwinConfig, ViTConfig

from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.analysis.token_places import (
    TokenPlacesError,
    region_stride,
    regions_of,
    square_places,
    stage_places,
)
from tests.helpers.cvt_models import tiny_config


SMALL = {"image_size": 64, "embed_dim": 8, "depths": [1, 1, 1], "num_heads": [1, 1, 1]}
CONFIGS = {
    "swin": lambda: EsViTConfig(**SMALL, window_size=4),
    "vil": lambda: EsViTConfig.from_architecture(
        "vil-tiny", **{**SMALL, "depths": [1] * 4, "num_heads": [1] * 4, "embed_dim": 4}
    ),
    "cvt": lambda: tiny_config(),
    "vit": lambda: EsViTConfig.from_architecture("deit-tiny", image_size=64, embed_dim=8, depths=[1], num_heads=[1]),
}


def receptive_field(config: EsViTConfig, size: tuple[int, int], stage: int, token: int) -> torch.Tensor:
    """Which pixels reach a token of a stage through embeddings and merging alone: `[H, W]`."""
    reach = torch.zeros(1, 1, *size, requires_grad=True)
    hidden = reach
    for index in range(stage + 1):
        if config.architecture in ("swin", "vit"):
            kernel, stride, padding = (config.patch_size, config.patch_size, 0) if index == 0 else (2, 2, 0)
            if index:
                hidden = torch.nn.functional.pad(hidden, (0, hidden.shape[3] % 2, 0, hidden.shape[2] % 2))
        elif config.architecture == "vil":
            kernel, stride, padding = config.patch_strides[index], config.patch_strides[index], 0
        else:
            kernel, stride, padding = config.patch_convolution(index)
        hidden = torch.nn.functional.conv2d(hidden, torch.ones(1, 1, kernel, kernel), stride=stride, padding=padding)
    return torch.autograd.grad(hidden.flatten()[token], reach)[0][0, 0] > 0


@pytest.mark.parametrize("size", [(64, 64), (70, 101), (47, 66)], ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_token_lies_where_it_looks(name, size):
    config = CONFIGS[name]()
    for stage, places in enumerate(stage_places(config, size)):
        for token in range(places.grid[0] * places.grid[1]):
            row, column = divmod(token, places.grid[1])
            own = (places.rows == row)[:, None] & (places.columns == column)
            field = receptive_field(config, size, stage, token)
            if name == "cvt":  # overlapping: the pixels around the middle of what it sees
                assert (field & own).sum() >= 0.7 * own.sum()
                for axis, pixels in zip((0, 1), size, strict=True):
                    seen, cell = (mask.any(dim=1 - axis).nonzero().double() for mask in (field, own))
                    if seen.min() > 0 and seen.max() < pixels - 1 and cell.min() > 0 and cell.max() < pixels - 1:
                        assert (seen.mean() - cell.mean()).abs() <= 0.5
            else:
                assert torch.equal(own, field)


@pytest.mark.parametrize("name", CONFIGS)
def test_regions_of_any_size(name):
    model = EsViTModel(CONFIGS[name]()).eval()
    for size in ((64, 64), (70, 101), (33, 128)):
        regions, places = regions_of(model, torch.randn(2, 3, *size))
        assert regions.shape[1] == places.grid[0] * places.grid[1]
        assert places.grid == model.config.region_grid(*size) and places.size == size
    assert model.config.region_grid(3 * region_stride(model.config), 64)[0] == 3


def test_centre_and_back():
    for places in stage_places(CONFIGS["cvt"](), (96, 128)) + stage_places(CONFIGS["swin"](), (70, 101)):
        for token in range(places.grid[0] * places.grid[1]):
            x, y = places.centre(token)
            assert places.token_at(int(x), int(y)) == token


def test_to_image():
    (places,) = stage_places(CONFIGS["vit"](), (32, 40))
    image = places.to_image(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert image[0, 0] == 1 and image[15, 16] == 2 and image[31, 31] == 4
    assert (image[:, 32:] == 0).all()  # cropped: no third patch


def test_regions_of_models_of_others():
    dino = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=8)
    regions, places = regions_of(AutoModel.from_config(dino).eval(), torch.randn(1, 3, 64, 80))
    assert places.grid == (8, 10) and regions.shape == (1, 80, 16)
    vit = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=8)
    regions, places = regions_of(AutoModel.from_config(vit).eval(), torch.randn(1, 3, 48, 80))
    assert places.grid == (6, 10) and regions.shape == (1, 60, 16)
    swin = SwinConfig(image_size=64, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4)
    regions, places = regions_of(AutoModel.from_config(swin).eval(), torch.randn(1, 3, 64, 96))
    assert places.grid == (8, 12) and regions.shape == (1, 96, 16)
    conv = ConvNextV2Config(hidden_sizes=[4, 8, 8, 8], depths=[1, 1, 1, 1])
    regions, places = regions_of(AutoModel.from_config(conv).eval(), torch.randn(1, 3, 64, 96))
    assert places.grid == (2, 3) and regions.shape == (1, 6, 8)
    with pytest.raises(TokenPlacesError, match="swin gives 97 tokens"):
        square_places(swin, (64, 96), 97)
