# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the draws of stochastic depth in every family: one for each branch of a block and each crop of each image."""

import pytest
import torch
from torch import nn

from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.tokens import split_images
from tests.helpers.tiny_models import CVT, VIL, VIT


SWIN = {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4, "image_size": 32}
CONFIGS = {"swin": SWIN, "cvt": CVT, "vil": VIL, "vit": VIT}
IMAGES, SIZES = 48, (64, 32)


def make_constant(layer: nn.Module, channel: int) -> None:
    """Makes the last layer of a branch return 1 in one channel and 0 in the others, whatever it is given."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)[channel] = 1.0


def find_last_block(model: EsViTModel) -> tuple[nn.Module, nn.Module]:
    """Returns the modules where the last block begins and ends, after making its branches constant."""
    encoder = model.encoder
    with torch.no_grad():
        if model.config.architecture == "cvt":
            block = encoder.get_submodule(f"stage{len(encoder.depths) - 1}")[1].layers[-1]
            make_constant(block[0].fn.proj_out, 0)
            make_constant(block[1].fn.net[2], 1)
            return block, block
        if model.config.architecture == "vil":
            attention, mlp = list(encoder.stages()[-1])[-2:]
        else:
            attention = mlp = (encoder.layers[-1] if model.config.architecture == "swin" else encoder).blocks[-1]
        make_constant(attention.attn.proj, 0)
        make_constant(mlp.mlp.fc2, 1)
    return attention, mlp


def read_factors(model: EsViTModel) -> torch.Tensor:
    """Returns the factors of the last block for two groups of crops: `[group, image, branch]`."""
    seen = {}
    first, last = find_last_block(model)
    first.register_forward_pre_hook(lambda module, args: seen.update(before=args[0]))
    last.register_forward_hook(lambda module, args, out: seen.update(after=out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        model([torch.zeros(IMAGES, 3, size, size) for size in SIZES])
    change = (seen["after"] - seen["before"]).flatten(0, 1)[:, :2]
    prefix = {"vit": 1, "vil": model.config.global_tokens[-1]}.get(model.config.architecture, 0)
    grids = [model.config.region_grid(size, size) for size in SIZES]
    lengths = [rows * columns + prefix for rows, columns in grids]
    groups = change.split([IMAGES * length for length in lengths])
    by_token = [group.view(IMAGES, length, 2) for group, length in zip(groups, lengths, strict=True)]
    for group in by_token:
        torch.testing.assert_close(group, group[:, :1].expand_as(group))  # all tokens of a crop share the factor
    return torch.stack([group[:, 0] for group in by_token])


@pytest.mark.parametrize("name", CONFIGS)
def test_each_branch_and_each_crop_has_its_own_draw(name):
    torch.manual_seed(0)
    model = EsViTModel(EsViTConfig(**CONFIGS[name] | {"drop_path_rate": 0.5})).train()
    factors = read_factors(model)
    torch.testing.assert_close(factors, 2 * (factors > 1).float())  # 0 or 1 / (1 - rate)
    drawn = [tuple(pair) for pair in (factors.view(-1, 2) > 1).tolist()]
    assert set(drawn) == {(False, False), (False, True), (True, False), (True, True)}
    kept = (factors > 1).double()
    # Independent draws agree in half of the cases; shared ones in all.
    agreements = {
        "both branches": (kept[..., 0] == kept[..., 1]),
        "both crops of an image": (kept[0] == kept[1]),
        "neighbouring images": (kept[:, 1:] == kept[:, :-1]),
    }
    assert {what: same.double().mean().item() for what, same in agreements.items()} == {
        what: pytest.approx(0.5, abs=0.2) for what in agreements
    }
    assert kept.mean() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    "limit, expected",
    [
        (100, [[(2, 4, 4), (3, 2, 3)]]),
        (50, [[(2, 4, 4), (3, 2, 3)]]),
        (49, [[(2, 4, 4), (2, 2, 3)], [(1, 2, 3)]]),
        (16, [[(1, 4, 4)], [(1, 4, 4)], [(2, 2, 3)], [(1, 2, 3)]]),
        (7, [[(1, 4, 4)], [(1, 4, 4)], [(1, 2, 3)], [(1, 2, 3)], [(1, 2, 3)]]),
    ],
)
def test_parts_keep_the_order_of_images(limit, expected):
    assert split_images([(2, 4, 4), (3, 2, 3)], limit) == expected
