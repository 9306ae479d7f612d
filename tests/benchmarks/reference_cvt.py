# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the plain form of a CvT: maps `[n, C, h, w]` throughout, window after window, images of one size."""

import torch
from torch import nn
from torch.nn import functional as F

from modeling_esvit import EsViTForPreTraining
from tests.benchmarks.reference_parts import drop_path


def plain_attention(attention: nn.Module, x: torch.Tensor, limit: int) -> torch.Tensor:
    """Attends in `[n, C, h, w]`, window after window and head after head."""
    n, width, h, w = x.shape
    window = min(limit, h, w)
    padded = F.pad(x, (0, -w % window, 0, -h % window))
    norm = attention.qkv.bn
    y = F.conv2d(padded, attention.qkv.dw.weight, padding=1, groups=width)
    dims = (0, 2, 3)
    mean, variance = (
        (y.mean(dims), y.var(dims, correction=0)) if norm.training else (norm.running_mean, norm.running_var)
    )
    y = (y - mean.view(-1, 1, 1)) / (variance.view(-1, 1, 1) + 1e-5).sqrt() * norm.weight.view(-1, 1, 1)
    y = F.conv2d(y + norm.bias.view(-1, 1, 1), attention.qkv.pw.weight, attention.qkv.pw.bias)
    result = torch.zeros_like(padded)
    for top in range(0, padded.shape[2], window):
        for left in range(0, padded.shape[3], window):
            cell = y[:, :, top : top + window, left : left + window].flatten(2)
            query, key, value = cell.unflatten(1, (3, attention.num_heads, -1)).unbind(1)
            weights = (query.transpose(2, 3) @ key * width**-0.5).softmax(-1)
            output = (value @ weights.transpose(2, 3)).flatten(1, 2).unflatten(2, (window, window))
            result[:, :, top : top + window, left : left + window] = output
    return F.conv2d(result[:, :, :h, :w], attention.proj_out.weight, attention.proj_out.bias)


def normed(norm: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def plain_encoder(encoder: nn.Module, x: torch.Tensor, window: int = 7) -> torch.Tensor:
    """Returns regions `[n, h * w, C]` of images of one size, with maps `[n, C, h, w]` throughout."""
    for stage in range(len(encoder.depths)):
        embed, blocks = encoder.get_submodule(f"stage{stage}")
        x = normed(embed.norm, F.conv2d(x, embed.proj.weight, embed.proj.bias, embed.proj.stride, embed.proj.padding))
        for block in blocks.layers:
            x = x + drop_path(plain_attention(block[0].fn, normed(block[0].norm, x), window), block)
            first, _, second = block[1].fn.net
            hidden = F.conv2d(normed(block[1].norm, x), first.weight, first.bias)
            x = x + drop_path(F.conv2d(hidden * torch.sigmoid(1.702 * hidden), second.weight, second.bias), block)
    return normed(encoder.norm, x).flatten(2).transpose(1, 2)


def backbone(model: EsViTForPreTraining, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns views `[n, C]` and regions `[n, T, C]` of images of one size."""
    regions = plain_encoder(model.esvit.encoder, images)
    return regions.mean(dim=1), regions
