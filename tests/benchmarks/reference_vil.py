# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the plain form of ViL that the sparse one is measured and checked against, equal in result: attention is
dense, over all global and local tokens, and what a token must not see has a logit of minus infinity. Of all modes only
that of all chunks. Position embeddings are resized by a matrix for each axis.
"""

import math

import torch

from modeling_esvit import EsViTForPreTraining
from modeling_esvit.vil import EsViTViLAttentionBlock, EsViTViLMLPBlock
from modeling_esvit.vil_attention import EsViTViLFullAttention, EsViTViLSparseAttention
from modeling_esvit.vil_embedding import EsViTViLEmbedding, EsViTViLPositionedEmbedding
from tests.benchmarks.reference_parts import drop_path


def places(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Returns row and column of each local token: `[T, 2]`."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return torch.stack([rows.flatten(), columns.flatten()], dim=1)


def local_bias(attention: EsViTViLSparseAttention, height: int, width: int) -> torch.Tensor:
    """Returns the bias `[heads, T, T]`, minus infinity between tokens whose chunks do not touch."""
    size = attention.window
    place = places(height, width, attention.proj.weight.device)
    rows, columns = (place[:, None] - place[None, :]).unbind(-1)
    chunk = place // size
    seen = ((chunk[:, None] - chunk[None, :]).abs() <= 1).all(-1)
    if not attention.has_biases:
        return attention.proj.weight.new_zeros(attention.num_heads, *seen.shape).masked_fill(~seen, -torch.inf)
    index = ((rows + 2 * size - 1) * (4 * size - 1) + columns + 2 * size - 1).where(seen, 0)
    return attention.local_relative_position_bias_table[index].permute(2, 0, 1).masked_fill(~seen, -torch.inf)


def dense_bias(attention: EsViTViLSparseAttention, height: int, width: int) -> torch.Tensor:
    """Returns the bias `[heads, g + T, g + T]`."""
    bias, g = local_bias(attention, height, width), attention.num_global
    if not attention.has_biases:
        return torch.nn.functional.pad(bias, (g, 0, g, 0))
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


def attention_without_biases(attention: EsViTViLFullAttention, tokens: torch.Tensor) -> torch.Tensor:
    """Computes full attention in which positions play no part, `[n, g + T, C]` to the same."""
    query, key, value = attention.qkv(tokens).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
    return attention.proj((weights @ value).transpose(1, 2).flatten(2))


def attend(layer: EsViTViLAttentionBlock, tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    normed = layer.norm(tokens)
    if isinstance(layer.attn, EsViTViLFullAttention) and not layer.attn.has_biases:
        branch = attention_without_biases(layer.attn, normed)
    elif isinstance(layer.attn, EsViTViLFullAttention):
        branch, _ = layer.attn(normed, height, width)
    else:
        branch = dense_attention(layer.attn, normed, height, width)
    return tokens + drop_path(branch, layer)


def mlp(layer: EsViTViLMLPBlock, tokens: torch.Tensor) -> torch.Tensor:
    branch = layer.mlp.fc2(layer.mlp.act(layer.mlp.fc1(layer.norm(tokens))))
    return tokens + drop_path(branch, layer)


def resize_matrix(size: int, length: int, scale: float) -> torch.Tensor:
    """Returns what each of `size` samples adds to each of `length` resized ones: cubic convolution, a = -0.75."""
    a = -0.75
    centre = (torch.arange(length, dtype=torch.float64) + 0.5) / scale - 0.5
    matrix = torch.zeros(length, size, dtype=torch.float64)
    for step in (-1, 0, 1, 2):
        sample = centre.floor() + step
        x = (centre - sample).abs()
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * (x**3 - 5 * x**2 + 8 * x - 4)
        columns = sample.clamp(0, size - 1).long()  # samples beyond the border are those on it
        matrix[torch.arange(length), columns] += near.where(x <= 1, far)
    return matrix


def local_positions(embedding: EsViTViLPositionedEmbedding, height: int, width: int) -> torch.Tensor:
    """Returns the position of each local token `[T, C]`: its row's, then its column's."""
    scale = math.sqrt((embedding.num_global + height * width) / embedding.side**2)
    size = math.floor(embedding.side * scale)
    if size**2 == height * width:
        shape, scales = (size, size), (scale, scale)
    else:  # where the original fails
        shape, scales = (height, width), (height / embedding.side, width / embedding.side)
    axes = (embedding.x_pos_embed[0], embedding.y_pos_embed[0])
    rows, columns = (
        resize_matrix(embedding.side, length, factor).to(axis) @ axis
        for axis, length, factor in zip(axes, shape, scales, strict=True)
    )
    return torch.cat([rows[:, None].expand(-1, shape[1], -1), columns.expand(shape[0], -1, -1)], dim=-1).flatten(0, 1)


def embed(embedding: EsViTViLEmbedding, images: torch.Tensor) -> tuple[torch.Tensor, int, int]:
    """Returns the sequences `[n, g + T, C]` of a stage, and the height and width of its map."""
    patches = embedding.proj(images)
    tokens = embedding.norm_embed(patches.flatten(2).transpose(1, 2))
    if embedding.num_global:
        tokens = torch.cat([embedding.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
    height, width = patches.shape[2:]
    if isinstance(embedding, EsViTViLPositionedEmbedding):
        first = embedding.cls_pos_embed[0] if embedding.num_global else tokens[0, :0]
        tokens = tokens + torch.cat([first, local_positions(embedding, height, width)])
    return tokens, height, width


def backbone(model: EsViTForPreTraining, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns views `[n, C]` and regions `[n, T, C]` of images of one size, without global tokens in the last stage."""
    encoder = model.esvit.encoder
    for stage in encoder.stages():
        embedding, *blocks = stage
        tokens, height, width = embed(embedding, images)
        for attention, feed_forward in zip(blocks[::2], blocks[1::2], strict=True):
            tokens = mlp(feed_forward, attend(attention, tokens, height, width))
        tokens = tokens[:, embedding.num_global :]
        images = tokens.transpose(1, 2).unflatten(2, (height, width))
    tokens = encoder.norm(tokens)
    return tokens.mean(dim=1), tokens
