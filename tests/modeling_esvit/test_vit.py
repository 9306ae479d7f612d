# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the positions of a ViT for images of any size, and configurations that cannot be."""

import pytest
import torch

from modeling_esvit import EsViTArchitectureError, EsViTConfig, EsViTModel
from tests.helpers.tiny_models import VIT


@torch.no_grad()
def test_positions_follow_the_size_of_the_image():
    """Stretches a table that rises with the rows: it stays symmetric, and equal along each row."""
    encoder = EsViTModel(EsViTConfig(**VIT)).encoder
    table = encoder.pos_embed[:, 1:].unflatten(1, (4, 4))
    table.copy_(torch.arange(4.0)[None, :, None, None].expand_as(table))
    assert torch.equal(encoder.positions(4, 4), table)
    wide = encoder.positions(4, 8)
    assert wide.shape == (1, 4, 8, 16)
    torch.testing.assert_close(wide, table[:, :, :1].expand_as(wide))
    column = encoder.positions(8, 4)[0, :, 0, 0]
    torch.testing.assert_close(column + column.flip(0), torch.full((8,), 3.0))
    assert (column.diff()[1:-1] > 0.3).all()


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"depths": [1, 1], "num_heads": [2, 2]}, r"A ViT has one stage; depths \[1, 1\] has others"),
        ({"num_heads": [3]}, r"num_heads\[0\]=3 must divide the width 16"),
        ({"image_size": 7}, "image_size 7 is smaller than patch_size 8"),
    ],
)
def test_impossible_configurations(fields, message):
    with pytest.raises(EsViTArchitectureError, match=message):
        EsViTConfig(**VIT | fields)
