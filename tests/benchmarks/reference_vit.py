# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the plain form of a ViT: eager attention over tokens `[n, 1 + T, C]` of one size, class token first."""

import torch
from torch import nn
from torch.nn import functional as F

from modeling_esvit import EsViTForPreTraining
from tests.benchmarks.reference_parts import drop_path


def positions(encoder: nn.Module, rows: int, columns: int) -> torch.Tensor:
    """Returns the positions `[1, 1 + rows * columns, C]`."""
    class_position, table = encoder.pos_embed[:, :1], encoder.pos_embed[:, 1:]
    height, width = encoder.position_grid
    if (rows, columns) == (height, width):
        return encoder.pos_embed
    table = table.reshape(1, height, width, -1).permute(0, 3, 1, 2)
    table = F.interpolate(table, size=(rows, columns), mode="bicubic").permute(0, 2, 3, 1)
    return torch.cat([class_position, table.reshape(1, rows * columns, -1)], dim=1)


def attention(module: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    n, length, channels = tokens.shape
    heads = module.num_heads
    query, key, value = module.qkv(tokens).reshape(n, length, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
    weights = (query @ key.transpose(-2, -1) * (channels // heads) ** -0.5).softmax(dim=-1)
    return module.proj((weights @ value).transpose(1, 2).reshape(n, length, channels))


def backbone(model: EsViTForPreTraining, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns views `[n, C]` and regions `[n, T, C]` of images of one size."""
    encoder = model.esvit.encoder
    patches = encoder.patch_embed.proj(images)
    tokens = torch.cat([encoder.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
    tokens = tokens + positions(encoder, *patches.shape[2:])
    for layer in encoder.blocks:
        tokens = tokens + drop_path(attention(layer.attn, layer.norm1(tokens)), layer)
        mlp = layer.mlp
        tokens = tokens + drop_path(mlp.fc2(mlp.act(mlp.fc1(layer.norm2(tokens)))), layer)
    tokens = encoder.norm(tokens)
    return tokens[:, 0], tokens[:, 1:]
