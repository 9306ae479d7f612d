# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Original checkpoints of every family of which one tensor is missing or not as it should be: always a typed error."""

from collections.abc import Iterator

import pytest
import torch

from modeling_esvit import EsViTConfig, EsViTForPreTraining
from modeling_esvit.conversion.original_checkpoint import OriginalCheckpoint
from modeling_esvit.conversion.original_families import find_family
from modeling_esvit.convert_original.converter import ConversionError, build_model, to_original_name


HEADS = {"num_prototypes": 16, "head_hidden_size": 8, "head_bottleneck_size": 4}
BLOCKS = {"depths": [1, 2], "num_heads": [1, 2]}
CVT = {"stage_dims": [8, 16], "patch_kernels": [7, 3], "patch_strides": [4, 2], "patch_paddings": [2, 1]}
VIL = "l1,h1,d8,n1,s1,g1,p4,f3,a0_l2,h2,d16,n1,s0,g1,p2,f3,a0"
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [32, 64], "depths": [1, 2]}
CONFIGS = {
    "swin": EsViTConfig(embed_dim=8, image_size=64, **BLOCKS, **HEADS),
    "cvt": EsViTConfig.from_architecture("cvt-tiny", embed_dim=8, **CVT, **BLOCKS, **HEADS),
    "vil": EsViTConfig.from_architecture(VIL, image_size=64, **HEADS),
    "vit": EsViTConfig.from_architecture("deit-tiny", embed_dim=16, depths=[2], num_heads=[2], image_size=64, **HEADS),
    "auto": EsViTConfig(architecture="auto", backbone_config=RESNET, **HEADS),
}
# What no tensor tells.
GIVEN: dict[str, dict] = {"cvt": {"num_heads": [1, 2]}, "vit": {"num_heads": [2]}}
# The images' channels are what the first convolution takes.
FIRST = ("patch_embed.proj.weight", "stage0.0.proj.weight", "layer1.0.proj.weight", "conv1.weight")


def network(family: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    tensors = EsViTForPreTraining(CONFIGS[family]).state_dict()
    return {to_original_name(name): tensor for name, tensor in tensors.items() if not name.endswith("center")}


def convert(family: str, tensors: dict[str, torch.Tensor]) -> None:
    found = find_family(tensors)
    if found is None:
        raise ConversionError("no family")
    build_model(OriginalCheckpoint(dict(tensors), found, "teacher"), None, GIVEN.get(family, {}))


def damaged(name: str, tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    yield tensor[None]
    yield from (tensor.narrow(dim, 0, 0) for dim in range(tensor.ndim))
    if tensor.ndim:
        yield tensor[0]
        yield tensor.flatten()[0]
        yield from (
            tensor.narrow(dim, 0, tensor.shape[dim] - 1) for dim in range(tensor.ndim) if (name, dim) not in FREE
        )


FREE = {(name, 1) for name in FIRST}
DECIDES = (".proj.weight", "conv1.weight", "conv3.weight", "bias_table", "pos_embed", "fc1.weight", "net.0.weight")


@pytest.mark.parametrize("everything", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", CONFIGS)
def test_one_tensor(family, everything):
    whole = network(family)
    convert(family, whole)
    for name, tensor in whole.items():
        if not everything and not (name.endswith(DECIDES) and "0" in name):
            continue
        with pytest.raises(ConversionError):
            convert(family, {other: value for other, value in whole.items() if other != name})
        for replacement in damaged(name, tensor):
            with pytest.raises(ConversionError):
                convert(family, {**whole, name: replacement})
        if tensor.is_floating_point():
            with pytest.raises(ConversionError, match="NaN"):
                convert(family, {**whole, name: torch.full_like(tensor, float("nan"))})
