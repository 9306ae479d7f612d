# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Renames the tensors of ResNets between torchvision and transformers.

The original of EsViT (microsoft/esvit, MIT) uses torchvision's.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch


STEM = {"conv1.": "embedder.embedder.convolution.", "bn1.": "embedder.embedder.normalization."}
PARTS = {
    **{f"conv{n}.": f"layer.{n - 1}.convolution." for n in (1, 2, 3)},
    **{f"bn{n}.": f"layer.{n - 1}.normalization." for n in (1, 2, 3)},
    "downsample.0.": "shortcut.convolution.",
    "downsample.1.": "shortcut.normalization.",
}
THEIR_LAYER = re.compile(rf"^layer(\d+)\.(\d+)\.({'|'.join(map(re.escape, PARTS))})")
OUR_LAYER = re.compile(rf"^encoder\.stages\.(\d+)\.layers\.(\d+)\.({'|'.join(map(re.escape, PARTS.values()))})")


def to_transformers(name: str) -> str:
    """Renames a tensor of torchvision's ResNet as in `ResNetBackbone`; a name that no ResNet has stays."""
    for old, new in STEM.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    match = THEIR_LAYER.match(name)
    if match is None:
        return name
    return f"encoder.stages.{int(match[1]) - 1}.layers.{match[2]}.{PARTS[match[3]]}{name[match.end() :]}"


def to_torchvision(name: str) -> str:
    """Inverts [`to_transformers`]."""
    for old, new in STEM.items():
        if name.startswith(new):
            return old + name.removeprefix(new)
    match = OUR_LAYER.match(name)
    if match is None:
        return name
    part = next(old for old, new in PARTS.items() if new == match[3])
    return f"layer{int(match[1]) + 1}.{match[2]}.{part}{name[match.end() :]}"


def infer_resnet_fields(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Infers the fields of a `ResNetConfig`, with `model_type`, from tensors by torchvision's names.

    The stride of a bottleneck, which no shape tells, is in its 3 x 3 convolution, as torchvision has it.

    Raises:
        KeyError: the first convolution, or the last of a stage, is missing.
    """
    blocks = {(int(match[1]), int(match[2])) for name in state_dict if (match := THEIR_LAYER.match(name))}
    number = max((stage for stage, _ in blocks), default=1)
    last = "conv3" if "layer1.0.conv3.weight" in state_dict else "conv2"
    width, num_channels, _, _ = state_dict["conv1.weight"].shape
    return {
        "model_type": "resnet",
        "num_channels": num_channels,
        "embedding_size": width,
        "hidden_sizes": [state_dict[f"layer{stage}.0.{last}.weight"].shape[0] for stage in range(1, number + 1)],
        "depths": [sum(stage == other for other, _ in blocks) for stage in range(1, number + 1)],
        "layer_type": "bottleneck" if last == "conv3" else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }
