# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which tokens of a model are regions, and where these lie: by the model's description, not by a count alone."""

import pytest
import torch
from torch import Tensor, nn
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel, PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutput

from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.analysis.token_places import TokenPlacesError
from training.features.frozen_models import FrozenModelError, TimmModel
from training.features.regions import compute_region_features, compute_region_side, find_even_grid, find_even_side


TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


def dino(extra: int, patch: int) -> Dinov2WithRegistersModel:
    """A ViT whose sequence begins with `extra` tokens that are no regions."""
    config = Dinov2WithRegistersConfig(image_size=96, patch_size=patch, num_register_tokens=extra - 1, **TINY)
    return Dinov2WithRegistersModel(config).eval()


@pytest.mark.parametrize(
    ("extra", "patch", "size", "grid"),
    [
        (9, 16, (64, 96), (4, 6)),
        (12, 16, (64, 96), (4, 6)),
        (7, 32, (96, 96), (3, 3)),  # by the count alone, 4 x 4
        (1, 16, (230, 250), (14, 15)),
    ],
)
def test_tokens_that_are_no_regions(extra, patch, size, grid):
    model, pixels = dino(extra, patch), torch.randn(1, 3, *size)
    features, places = compute_region_features(model, pixels)
    assert places.grid == grid and places.size == size
    assert torch.equal(features, model(pixels).last_hidden_state[:, extra:])
    assert places.divides_evenly == (size != (230, 250))


def test_an_adapted_backbone():
    """An EfficientNet: 33 x 49 regions of 1036 x 1540 pixels: no whole number of pixels a region."""
    pytest.importorskip("timm")
    model = EsViTModel(EsViTConfig(architecture="auto", backbone_config="timm:tinynet_e")).eval()
    features, places = compute_region_features(model, torch.zeros(1, 3, 1036, 1540))
    assert find_even_grid(places) == (33, 49) and features.shape[1] == 33 * 49


class Tokens(nn.Module):
    """Gives a number of tokens, whatever the image."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, count: int, **fields: int) -> None:
        super().__init__()
        self.count, self.config = count, PreTrainedConfig(**fields)

    def forward(self, pixel_values: Tensor) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=torch.arange(self.count)[None, :, None])


@pytest.mark.parametrize("tokens", [95, 96 * 3, 96 + 9])
def test_tokens_that_are_no_grid(tokens):
    with pytest.raises(TokenPlacesError, match=f"{tokens} tokens"):
        compute_region_features(Tokens(tokens), torch.zeros(1, 3, 128, 192))


@pytest.mark.parametrize(
    ("tokens", "patch", "size", "extra", "grid"),
    [
        (96, 16, (128, 192), 0, (8, 12)),
        (97, 16, (128, 192), 1, (8, 12)),
        (101, 16, (128, 192), 5, (8, 12)),
        (16, 16, (64, 64), 0, (4, 4)),
        (1, 32, (32, 32), 0, (1, 1)),
    ],
)
def test_tokens_before_the_regions(tokens, patch, size, extra, grid):
    features, places = compute_region_features(Tokens(tokens, patch_size=patch), torch.zeros(1, 3, *size))
    assert places.grid == grid and features[0, 0] == extra


def test_measures_need_regions_of_one_size():
    """By the count alone, the 4 x 4 regions of 112 pixels would be 28 pixels wide; they are 32, the last 16."""
    small = {"embed_dim": 8, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 7}
    model = EsViTModel(EsViTConfig(image_size=112, **small)).eval()
    _, places = compute_region_features(model, torch.zeros(1, 3, 112, 112))
    assert places.grid == (4, 4) and compute_region_side(model, 112) == 32
    with pytest.raises(
        TokenPlacesError, match="no grid of square regions: choose a size that its stride of 32 pixels"
    ) as error:
        find_even_grid(places)
    assert str(error.value).endswith("divides, as by --image_size 128.") and find_even_side(model, 112) == 128
    assert find_even_side(model, 128) == 128
    with pytest.raises(TokenPlacesError, match=r"as by --stereo_size 128 128\."):
        find_even_grid(places, "--stereo_size {0} {1}")


@pytest.mark.parametrize(
    ("name", "side", "prefix", "grid"),
    [
        ("deit_tiny_distilled_patch16_224", 64, 2, (4, 4)),
        ("mixer_s32_224", 224, 0, (7, 7)),
        ("xcit_nano_12_p16_224", 64, 1, (4, 4)),
    ],
)
def test_models_of_timm_say_which_tokens_are_regions(name, side, prefix, grid):
    timm = pytest.importorskip("timm")
    options = {"img_size": side} if "deit" in name else {}
    model = TimmModel(timm.create_model(name, num_classes=0, **options)).eval()
    pixels = torch.randn(2, 3, side, side)
    features, places = compute_region_features(model, pixels)
    assert places.grid == grid and places.divides_evenly
    torch.testing.assert_close(features, model.model.forward_features(pixels)[:, prefix:])


def test_models_of_timm_that_do_not_say():
    class Unknown(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward_features(self, pixels: Tensor) -> Tensor:
            return torch.zeros(1, 17, 8)

    model = TimmModel(Unknown())
    with pytest.raises(FrozenModelError, match="Unknown of timm gives tokens and no map of them"):
        compute_region_features(model, torch.zeros(1, 3, 64, 64))
    model.model.forward_intermediates = lambda *_, **__: [torch.zeros(1, 8, 4, 4)]
    with pytest.raises(FrozenModelError, match="17 tokens, but a map of 4 x 4 regions and 0 class tokens"):
        compute_region_features(model, torch.zeros(1, 3, 64, 64))
    model.model.num_prefix_tokens = 1
    assert compute_region_features(model, torch.zeros(1, 3, 64, 64))[1].grid == (4, 4)
