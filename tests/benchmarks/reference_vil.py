# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the plain form of ViL that the sparse one is measured and checked against, equal in result: attention is
dense, over all global and local tokens, and what a token must not see has a logit of minus infinity. Of all modes only
that of all chunks.
"""

import torch

from modeling_esvit import EsViTForPreTraining
from modeling_esvit.vil import EsViTViLAttentionBlock, EsViTViLMLPBlock
from modeling_esvit.vil_attention import EsViTViLFullAttention, EsViTViLSparseAttention
from tests.benchmarks.reference_parts import drop_path


def places(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Returns row and column of each local token: `[T, 2]`."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return torch.stack([rows.flatten(), columns.flatten()], dim=1)


def local_bias(attention: EsViTViLSparseAttention, height: int, width: int) -> torch.Tensor:
    """Returns the bias `[heads, T, T]`, minus infinity between tokens whose chunks do not touch."""
    table, size = attention.local_relative_position_bias_table, attention.window
    place = places(height, width, table.device)
    rows, columns = (place[:, None] - place[None, :]).unbind(-1)
    chunk = place // size
    seen = ((chunk[:, None] - chunk[None, :]).abs() <= 1).all(-1)
    index = ((rows + 2 * size - 1) * (4 * size - 1) + columns + 2 * size - 1).where(seen, 0)
    return table[index].permute(2, 0, 1).masked_fill(~seen, -torch.inf)


def dense_bias(attention: EsViTViLSparseAttention, height: int, width: int) -> torch.Tensor:
    """Returns the bias `[heads, g + T, g + T]`."""
    bias, g = local_bias(attention, height, width), attention.num_global
    if not g:
        return bias
    to_local = attention.g2l_relative_position_bias[0][:, :, None].expand(-1, -1, bias.shape[-1])
    to_global = attention.g2l_relative_position_bias[1][:, None].expand(-1, bias.shape[-1], -1)
    first = torch.cat([attention.g2g_relative_position_bias, to_local], dim=-1)
    return torch.cat([first, torch.cat([to_global, bias], dim=-1)], dim=1)


def dense_attention(attention: EsViTViLSparseAttention, tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Computes the attention's own call, `[n, g + T, C]` to the same, where global tokens share local weights."""
    n, length, channels = tokens.shape
    heads = attention.num_heads
    query = attention.query(tokens).view(n, length, heads, -1).transpose(1, 2) * attention.scaling
    key, value = attention.kv(tokens).view(n, length, 2, heads, -1).permute(2, 0, 3, 1, 4)
    logits = query @ key.transpose(-2, -1) + dense_bias(attention, height, width)
    mixed = (logits.softmax(dim=-1) @ value).transpose(1, 2).reshape(n, length, channels)
    return attention.proj(mixed)


def attend(layer: EsViTViLAttentionBlock, tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    normed = layer.norm(tokens)
    if isinstance(layer.attn, EsViTViLFullAttention):
        branch, _ = layer.attn(normed, height, width)
    else:
        branch = dense_attention(layer.attn, normed, height, width)
    return tokens + drop_path(branch, layer)


def mlp(layer: EsViTViLMLPBlock, tokens: torch.Tensor) -> torch.Tensor:
    branch = layer.mlp.fc2(layer.mlp.act(layer.mlp.fc1(layer.norm(tokens))))
    return tokens + drop_path(branch, layer)


def backbone(model: EsViTForPreTraining, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns views `[n, C]` and regions `[n, T, C]` of images of one size, without global tokens in the last stage."""
    encoder = model.esvit.encoder
    for stage in encoder.stages():
        embedding, *blocks = stage
        patches = embedding.proj(images)
        height, width = patches.shape[2:]
        tokens = embedding.norm_embed(patches.flatten(2).transpose(1, 2))
        if embedding.num_global:
            tokens = torch.cat([embedding.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        for attention, feed_forward in zip(blocks[::2], blocks[1::2], strict=True):
            tokens = mlp(feed_forward, attend(attention, tokens, height, width))
        tokens = tokens[:, embedding.num_global :]
        images = tokens.transpose(1, 2).unflatten(2, (height, width))
    tokens = encoder.norm(tokens)
    return tokens.mean(dim=1), tokens
