# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The mask of the original's early training runs, against a plain form of it."""

import pytest
import torch

from modeling_esvit import EsViTArchitectureError, EsViTConfig, EsViTInputError, EsViTModel


# Maps at construction of 8 x 8 and 4 x 4 tokens: 4 windows, whose odd blocks shift, and one window, without shift.
FIELDS = {"embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": 4, "image_size": 32}
FIELDS |= {"drop_path_rate": 0.0}


def construction_masks() -> torch.Tensor:
    """Of the four windows of 4 x 4 of a map of 8 x 8 that was rolled by 2: `[4, 16, 16]`."""
    parts = [0] * 4 + [1] * 2 + [2] * 2
    masks = torch.zeros(4, 16, 16)
    for k in range(4):
        cells = [(4 * (k // 2) + c // 4, 4 * (k % 2) + c % 4) for c in range(16)]
        labels = [(parts[row], parts[column]) for row, column in cells]
        for q in range(16):
            for key in range(16):
                masks[k, q, key] = 0 if labels[q] == labels[key] else -100
    return masks


def plain_block(block, tokens: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """A shifted block `[n, h, w, C]` of whole windows: window k of the list of all windows has mask k modulo 4."""
    n, h, w, width = tokens.shape
    attn, heads = block.attn, block.attn.num_heads
    rolled = block.norm1(tokens).roll((-2, -2), (1, 2))
    places = [(i, r, c) for i in range(n) for r in range(0, h, 4) for c in range(0, w, 4)]
    output = torch.zeros_like(tokens)
    for k, (i, r, c) in enumerate(places):
        window = rolled[i, r : r + 4, c : c + 4].reshape(16, width)
        query, key, value = attn.qkv(window).view(16, 3, heads, -1).permute(1, 2, 0, 3)
        logits = query @ key.transpose(1, 2) * attn.scaling + attn.position_bias() + masks[k % len(masks)]
        mixed = (logits.softmax(-1) @ value).transpose(0, 1).reshape(16, width)
        output[i, r : r + 4, c : c + 4] = attn.proj(mixed).view(4, 4, width)
    tokens = tokens + output.roll((2, 2), (1, 2))
    return tokens + block.mlp(tokens, block.norm2)


def models(**options) -> tuple[EsViTModel, EsViTModel]:
    """The same weights, with the legacy mask and without, both in training mode."""
    torch.manual_seed(0)
    legacy = EsViTModel(EsViTConfig(**{**FIELDS, "legacy_shift_mask": True, **options}))
    for name, parameter in legacy.named_parameters():  # attention that is far from uniform, so that masks show
        torch.nn.init.normal_(parameter, 0, 1.0 if "qkv" in name or "norm" in name else 0.3)
    fixed = EsViTModel(EsViTConfig(**{**FIELDS, **options}))
    fixed.load_state_dict(legacy.state_dict())
    return legacy.train(), fixed.train()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("size", [(16, 16), (16, 32), (32, 32), (32, 48), (48, 48)], ids=str)
def test_shifted_block_equals_the_plain_form(size, attention):
    legacy, _ = models(attn_implementation=attention)
    stage = legacy.encoder.layers[0]
    grid = (4, size[0] // 4, size[1] // 4)
    tokens = torch.randn(4, grid[1] * grid[2], 8)
    ours, _ = stage.blocks[1](tokens, [grid], stage.make_shift_masks([grid], tokens))
    plain = plain_block(stage.blocks[1], tokens.view(*grid, 8), construction_masks())
    torch.testing.assert_close(ours, plain.view_as(ours), rtol=0, atol=1e-5)


def test_crops_of_two_sizes_and_the_gradient():
    legacy, fixed = models()
    large, small = torch.randn(2, 3, 32, 32), torch.randn(4, 3, 16, 16)
    ours, theirs = legacy([large, small]), fixed([large, small])
    torch.testing.assert_close(ours.pooler_output[:2], theirs.pooler_output[:2], rtol=0, atol=1e-5)
    assert (ours.pooler_output[2:] - theirs.pooler_output[2:]).abs().max() > 1e-3
    torch.testing.assert_close(ours.pooler_output[2:], legacy(small).pooler_output, rtol=0, atol=1e-5)
    ours.pooler_output.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in legacy.encoder.layers[0].blocks[1].attn.parameters())


def test_number_of_images_that_does_not_fit():
    legacy, _ = models()
    with pytest.raises(EsViTInputError, match="2 images of 4 x 4 tokens have 2 windows, no multiple of the 4 masks"):
        legacy(torch.randn(2, 3, 16, 16))


def test_evaluation_uses_the_mask_of_the_map():
    legacy, fixed = (model.eval() for model in models())
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(legacy(images).pooler_output, fixed(images).pooler_output, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["cvt-tiny", "deit-tiny", "resnet-50"])
def test_others_have_no_such_mask(name):
    with pytest.raises(EsViTArchitectureError, match="legacy_shift_mask is for a Swin"):
        EsViTConfig.from_architecture(name, legacy_shift_mask=True)
