# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how a ViL resizes its position embeddings: as the original does, and on maps that the original fails on."""

import pytest
import torch

from modeling_esvit import EsViTConfig
from modeling_esvit.vil_embedding import EsViTViLPositionedEmbedding


def make_embedding(num_global: int) -> EsViTViLPositionedEmbedding:
    """Makes the embedding of a stage with 4 x 4 positions, each of a number for its row and one for its column."""
    stage = {"depths": [1], "num_heads": [1], "patch_strides": [4], "sparse_stages": [1], "embed_dim": 2}
    config = EsViTConfig(architecture="vil", **stage, image_size=16, global_tokens=[num_global], absolute_positions=[1])
    return EsViTViLPositionedEmbedding(config, 0)


# Positions of rows 0, 1, 4, 9 and of columns 1, -1, 2, 0 as the original (microsoft/esvit, MIT) resizes them, by the
# number of global tokens, height and width; it takes the map of 3 x 12 tokens for one of 6 x 6.
RESIZED = {
    (0, 4, 4): ([0, 1, 4, 9], [1, -1, 2, 0]),
    (1, 4, 4): ([-0.0108647, 0.8730065, 3.5843213, 8.5920277], [1.0217299, -1.0218470, 1.9082795, 0.1939954]),
    (2, 6, 6): (
        [-0.0894954, 0.2045157, 1.3273125, 2.9049895, 6.3691010, 9.2239161],
        [1.1789906, -0.2054970, -0.8157337, 1.5286263, 1.4974231, -0.0895672],
    ),
    (1, 3, 12): (
        [-0.0881996, 0.2113009, 1.3787275, 3.0222919, 6.5727520, 9.3416138],
        [1.1763992, -0.2427825, -0.7654936, 1.6206044, 1.3939557, -0.1366439],
    ),
    (1, 2, 2): ([0.1698460, 5.0729599], [0.0243887, 1.9559188]),
}


@torch.no_grad()
@pytest.mark.parametrize("num_global, height, width", RESIZED)
def test_positions_are_resized_as_in_the_original(num_global, height, width):
    embedding = make_embedding(num_global)
    embedding.x_pos_embed[0, :, 0] = torch.tensor([0.0, 1, 4, 9])
    embedding.y_pos_embed[0, :, 0] = torch.tensor([1.0, -1, 2, 0])
    rows, columns = map(torch.tensor, RESIZED[num_global, height, width])
    expected = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1).float()
    torch.testing.assert_close(embedding.local_positions(height, width)[0], expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("num_global, height, width", [(0, 3, 5), (1, 5, 3), (9, 4, 4)])
def test_positions_where_the_original_fails(num_global, height, width):
    """Rows and columns are resized each to its own length."""
    embedding = make_embedding(num_global)
    embedding.x_pos_embed[0, :, 0] = torch.arange(4.0)
    embedding.y_pos_embed[0, :, 0] = -torch.arange(4.0)
    found = embedding.local_positions(height, width).view(height, width, 2)
    assert (found[1:, :, 0] > found[:-1, :, 0]).all() and (found[:, 1:, 1] < found[:, :-1, 1]).all()
    torch.testing.assert_close(found.mean((0, 1)), torch.tensor([1.5, -1.5]), rtol=0, atol=1e-6)
