# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares the layers' learning rates with plain formulas on the names of the parameters of each kind of network."""

import re
from collections.abc import Callable

import pytest
import torch

from modeling_esvit import EsViTBackboneError, EsViTConfig, EsViTForPreTraining
from tests.helpers.tiny_models import (
    BACKBONES,
    CVT,
    DINO_V2,
    DINO_V3,
    DINO_V3_CONVNEXT,
    HEADS,
    HIERA,
    VIL,
    VIT,
    auto_config,
)
from training.learning.layers import number_layers, scale_rates
from training.learning.optimizer import group_parameters, set_schedules


SWIN = {"image_size": 64, "embed_dim": 8, "depths": [2, 1, 3], "num_heads": [1, 1, 2], "window_size": 4}
DEEP = {"depths": [2, 1, 3, 1]}
Rule = Callable[[re.Match, list[int]], int]  # the numbers in a name, and the depths of the stages -> the layer


def count(stage: str, block: str, depths: list[int]) -> int:
    """Returns the layer of a block of a stage: the embedding is 0."""
    return sum(depths[: int(stage)]) + int(block) + 1


# For each network: its configuration, its depths, and the layer by the first pattern that its name has. What has none
# lies after the last block.
KINDS: dict[str, tuple[EsViTConfig, list[int], dict[str, Rule]]] = {
    "swin": (
        EsViTConfig(**SWIN, **HEADS),
        [2, 1, 3],
        {
            r"encoder\.patch_embed\.": lambda m, d: 0,
            r"layers\.(\d+)\.blocks\.(\d+)\.": lambda m, d: count(m[1], m[2], d),
            r"layers\.(\d+)\.downsample\.": lambda m, d: sum(d[: int(m[1]) + 1]),
        },
    ),
    "cvt": (
        EsViTConfig(**CVT | {"depths": [2, 3]}, **HEADS),
        [2, 3],
        {
            r"stage(\d)\.1\.layers\.(\d+)\.": lambda m, d: count(m[1], m[2], d),
            r"stage(\d)\.0\.": lambda m, d: sum(d[: int(m[1])]),
        },
    ),
    "vil": (
        EsViTConfig(**VIL | {"depths": [2, 3]}, **HEADS),
        [2, 3],
        {
            r"layer(\d)\.0\.": lambda m, d: sum(d[: int(m[1]) - 1]),
            r"layer(\d)\.(\d+)\.": lambda m, d: sum(d[: int(m[1]) - 1]) + (int(m[2]) + 1) // 2,  # attention, MLP
        },
    ),
    "vit": (
        EsViTConfig(**VIT | {"depths": [3]}, **HEADS),
        [3],
        {
            r"cls_token|pos_embed|patch_embed": lambda m, d: 0,
            r"blocks\.(\d+)\.": lambda m, d: count("0", m[1], d),
        },
    ),
    "dinov2": (
        auto_config(DINO_V2 | {"num_hidden_layers": 12}),
        [12],
        {r"\.embeddings\.": lambda m, d: 0, r"encoder\.layer\.(\d+)\.": lambda m, d: count("0", m[1], d)},
    ),
    "dinov3_vit": (
        auto_config(DINO_V3),
        [2],
        {r"\.embeddings\.": lambda m, d: 0, r"model\.layer\.(\d+)\.": lambda m, d: count("0", m[1], d)},
    ),
    "dinov3_convnext": (
        auto_config(DINO_V3_CONVNEXT | DEEP),
        [2, 1, 3, 1],
        {
            r"stages\.(\d)\.layers\.(\d+)\.": lambda m, d: count(m[1], m[2], d),
            r"stages\.(\d)\.downsample_layers\.": lambda m, d: sum(d[: int(m[1])]),
        },
    ),
    "convnextv2": (
        auto_config(BACKBONES["convnextv2"] | DEEP),
        [2, 1, 3, 1],
        {
            r"\.embeddings\.": lambda m, d: 0,
            r"stages\.(\d)\.layers\.(\d+)\.": lambda m, d: count(m[1], m[2], d),
            r"stages\.(\d)\.downsampling_layer\.": lambda m, d: sum(d[: int(m[1])]),
        },
    ),
    "swinv2": (
        auto_config(BACKBONES["swinv2"] | DEEP),
        [2, 1, 3, 1],
        {
            r"\.embeddings\.": lambda m, d: 0,
            r"layers\.(\d)\.blocks\.(\d+)\.": lambda m, d: count(m[1], m[2], d),
            r"layers\.(\d)\.downsample\.": lambda m, d: sum(d[: int(m[1]) + 1]),
        },
    ),
    "hiera": (
        auto_config(HIERA | DEEP),
        [2, 1, 3, 1],
        {r"\.embeddings\.": lambda m, d: 0, r"stages\.(\d)\.layers\.(\d+)\.": lambda m, d: count(m[1], m[2], d)},
    ),
    "pvt": (  # lists of embeddings beside the list of blocks
        auto_config(BACKBONES["pvt"] | DEEP),
        [2, 1, 3, 1],
        {
            r"patch_embeddings\.(\d)\.": lambda m, d: sum(d[: int(m[1])]),
            r"encoder\.block\.(\d)\.(\d+)\.": lambda m, d: count(m[1], m[2], d),
        },
    ),
    "resnet": (  # lists of convolutions in each block
        auto_config(BACKBONES["resnet"] | DEEP),
        [2, 1, 3, 1],
        {r"\.embedder\.": lambda m, d: 0, r"stages\.(\d)\.layers\.(\d+)\.": lambda m, d: count(m[1], m[2], d)},
    ),
    "timm": (  # four lists
        auto_config(BACKBONES["timm"]),
        [2, 2, 2, 2],
        {
            r"_backbone\.(conv|bn)1\.": lambda m, d: 0,
            r"layer(\d)\.(\d+)\.": lambda m, d: count(str(int(m[1]) - 1), m[2], d),
        },
    ),
    "timm efficientnet": (  # blocks of several classes
        auto_config({"model_type": "timm_backbone", "backbone": "tf_efficientnet_lite0"}),
        [1, 2, 2, 3, 3, 4, 1],
        {
            r"_backbone\.(conv_stem|bn1)\.": lambda m, d: 0,
            r"blocks\.(\d)\.(\d+)\.": lambda m, d: count(m[1], m[2], d),
        },
    ),
}


def apply_rules(name: str, depths: list[int], rules: dict[str, Rule]) -> int:
    for pattern, rule in rules.items():
        if ".encoder." in name and (match := re.search(pattern, name)):
            return rule(match, depths)
    return sum(depths) + 1


@pytest.mark.parametrize("kind", KINDS)
def test_layers_and_rates_are_those_of_the_formula(kind):
    config, depths, rules = KINDS[kind]
    with torch.device("meta"):
        model = EsViTForPreTraining(config)
    numbers, factors = number_layers(model), scale_rates(model, 0.75)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert numbers == {name: apply_rules(name, depths, rules) for name in trainable}
    assert set(numbers.values()) == set(range(sum(depths) + 2))
    assert factors == {name: 0.75 ** (sum(depths) + 1 - numbers[name]) for name in trainable}


def test_rates_reach_the_optimizer_and_leave_the_order_as_it_is():
    model = EsViTForPreTraining(EsViTConfig(**SWIN, **HEADS))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(group_parameters(model, 0.5), lr=0.0)
    set_schedules(optimizer, lr=0.3, weight_decay=0.1)
    factors, ordered = scale_rates(model, 0.5), []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            ordered.append(name)
            assert group["lr"] == 0.3 * factors[name]
            assert group["weight_decay"] == (0 if name.endswith("bias") or parameter.ndim == 1 else 0.1)
    plain = [names[id(parameter)] for group in group_parameters(model) for parameter in group["params"]]
    assert ordered == plain and len(optimizer.param_groups) > 2


@pytest.mark.parametrize("name", ["regnety_002", "vgg11"])
def test_backbones_without_lists_of_blocks_are_refused(name):
    with torch.device("meta"):
        model = EsViTForPreTraining(auto_config({"model_type": "timm_backbone", "backbone": name}))
    with pytest.raises(EsViTBackboneError, match="layer_decay: the blocks of a TimmBackbone cannot be told; leave it"):
        scale_rates(model, 0.75)
