# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The Swin backbone against a plain reading of its definition, written below token by token: windows, shifts, padding,
masks, merging. Then what the packed form must not change: several groups in one pass, other images, other kernels.
"""

import pytest
import torch
from torch.nn import functional as F

from modeling_esvit import EsViTConfig, EsViTForPreTraining, EsViTModel, swin
from modeling_esvit.tokens import EsViTDropPath
from modeling_esvit.windows import make_shift_mask


TINY = {
    "image_size": 48,
    "embed_dim": 8,
    "depths": [2, 2, 2],
    "num_heads": [2, 2, 4],
    "window_size": 4,
    "num_prototypes": 16,
    "head_hidden_size": 12,
    "head_bottleneck_size": 8,
}  # maps of 12, 6 and 3 tokens: shift in the first two stages, a window of 3 in the last


def build(model_class=EsViTModel, attention="sdpa", **fields):
    """A model in double precision whose every parameter is far from its initial value."""
    torch.manual_seed(0)
    model = model_class._from_config(EsViTConfig(**{**TINY, **fields}), attn_implementation=attention).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def images(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


# ---- the reference ---------------------------------------------------------------------------------------------------


def region_label(index, size, window, shift):
    """Which part of the image a row (or column) of the rolled map is from."""
    return 0 if index < size - window else 1 if index < size - shift else 2


def attention_of_window(attn, tokens, labels, window):
    """`[window**2, C]` -> the same, and the weights; tokens whose `labels` differ are from different parts: -100."""
    q, k, v = F.linear(tokens, attn.qkv.weight, attn.qkv.bias).chunk(3, dim=-1)
    table = attn.relative_position_bias_table
    dim = q.shape[-1] // attn.num_heads
    heads, weights = [], []
    for head in range(attn.num_heads):
        part = slice(head * dim, (head + 1) * dim)
        logits = (q[:, part] * dim**-0.5) @ k[:, part].T
        bias = torch.empty_like(logits)
        for i in range(window**2):
            for j in range(window**2):
                row, column = i // window - j // window + window - 1, i % window - j % window + window - 1
                bias[i, j] = table[row * (2 * window - 1) + column, head] - 100.0 * (labels[i] != labels[j])
        weights.append((logits + bias).softmax(-1))
        heads.append(weights[-1] @ v[:, part])
    return attn.proj(torch.cat(heads, dim=-1)), torch.stack(weights)


def reference_attention(attn, x):
    """`[H, W, C]` -> the same, and the weights of each window: padding, shift and windows by index arithmetic."""
    height, width, channels = x.shape
    window, shift = attn.window, attn.shift
    rows, columns = -(-height // window) * window, -(-width // window) * window
    padded = x.new_zeros(rows, columns, channels)
    padded[:height, :width] = x
    out, weights = torch.empty_like(padded), []
    for top in range(0, rows, window):
        for left in range(0, columns, window):
            rolled = [(top + i, left + j) for i in range(window) for j in range(window)]
            labels = [
                (region_label(r, rows, window, shift), region_label(c, columns, window, shift)) if shift else 0
                for r, c in rolled
            ]
            places = [((r + shift) % rows, (c + shift) % columns) for r, c in rolled]
            tokens = torch.stack([padded[place] for place in places])
            result, window_weights = attention_of_window(attn, tokens, labels, window)
            weights.append(window_weights)
            for place, token in zip(places, result, strict=True):
                out[place] = token
    return out[:height, :width], torch.stack(weights)


def reference_merging(merge, x):
    height, width, channels = x.shape
    zero = x.new_zeros(channels)

    def at(row, column):
        return x[row, column] if row < height and column < width else zero

    tokens = [
        [torch.cat([at(r, c), at(r + 1, c), at(r, c + 1), at(r + 1, c + 1)]) for c in range(0, width, 2)]
        for r in range(0, height, 2)
    ]
    return merge.reduction(merge.norm(torch.stack([torch.stack(row) for row in tokens])))


def reference_embedding(embed, image, patch):
    """Patches by slicing; pixels beyond the last whole patch are not looked at."""
    rows, columns = image.shape[1] // patch, image.shape[2] // patch
    weight, bias = embed.proj.weight.flatten(1), embed.proj.bias
    patches = [
        [image[:, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].flatten() for c in range(columns)]
        for r in range(rows)
    ]
    return embed.norm(torch.stack([torch.stack(row) for row in patches]) @ weight.T + bias)


def reference_encoder(encoder, image, patch=4):
    """One image `[3, H, W]` -> regions `[T, C]`, and of every block its pooled output and its weights by window."""
    x = reference_embedding(encoder.patch_embed, image, patch)
    pooled, attentions = [], []
    for stage in encoder.layers:
        for block in stage.blocks:
            branch, weights = reference_attention(block.attn, block.norm1(x))
            attentions.append(weights)
            x = x + branch
            x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
            pooled.append((x if stage.downsample is not None else encoder.norm(x)).mean(dim=(0, 1)))
        if stage.downsample is not None:
            x = reference_merging(stage.downsample, x)
    return encoder.norm(x).flatten(0, 1), pooled, attentions


@pytest.mark.parametrize(
    ("size", "fields"),
    [
        ((48, 48), {}),
        ((51, 70), {}),  # neither multiples of the patch, nor of windows, nor square; odd maps
        ((20, 16), {}),  # one window that is still shifted and padded
        ((4, 9), {}),  # one row of two patches
        ((36, 60), {"qkv_bias": False, "patch_norm": False}),
        ((40, 28), {"depths": [1, 3], "num_heads": [1, 4], "window_size": 5, "image_size": [48, 80]}),
        ((24, 24), {"depths": [2], "num_heads": [2], "patch_size": 3, "num_channels": 1, "image_size": 15}),
    ],
)
def test_equals_reference(size, fields):
    model = build(**fields)
    batch = images(2, model.config.num_channels, *size)
    with torch.no_grad():
        output = model(batch)
        features = model.n_last_blocks_features(batch, n=sum(model.config.depths))
        attentions = model(batch, output_attentions=True).attentions  # although the implementation is sdpa
        for index, image in enumerate(batch):
            regions, pooled, weights = reference_encoder(model.encoder, image, model.config.patch_size)
            torch.testing.assert_close(output.last_hidden_state[index], regions, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(output.pooler_output[index], regions.mean(0), rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(features[index], torch.cat(pooled), rtol=1e-9, atol=1e-9)
            for block, reference in zip(attentions, weights, strict=True):
                torch.testing.assert_close(block.chunk(2)[index], reference, rtol=1e-4, atol=1e-5)


# ---- geometry fixed at construction ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window_size", "windows", "shifts"), [(7, [7, 7, 7, 7], [3, 3, 3, 0]), (14, [14, 14, 14, 7], [7, 7, 0, 0])]
)
def test_windows_and_shifts_of_published_models(window_size, windows, shifts):
    with torch.device("meta"):
        model = EsViTModel(EsViTConfig.from_architecture("swin-tiny", window_size=window_size))
    for stage, window, shift in zip(model.encoder.layers, windows, shifts, strict=True):
        attentions = [block.attn for block in stage.blocks]
        assert [attention.window for attention in attentions] == [window] * len(attentions)
        assert [attention.shift for attention in attentions] == [0, shift] * (len(attentions) // 2)
        assert attentions[0].relative_position_bias_table.shape[0] == (2 * window - 1) ** 2


@pytest.mark.parametrize(
    ("padded", "window", "shift", "masked"),
    [
        (28, 7, 3, 8832),
        (14, 7, 3, 4128),
        (7, 7, 3, 1776),
        (56, 7, 3, 18240),
        (28, 14, 7, 67228),
        (14, 14, 7, 28812),
    ],
)
def test_masked_pairs(padded, window, shift, masked):
    """The counts are the original's, at 96 px and (56 tokens) 224 px."""
    mask = make_shift_mask(padded, padded, window, shift, torch.zeros(1))
    assert mask.unique().tolist() == [-100.0, 0.0] and int((mask != 0).sum()) == masked


def test_forward_changes_no_state():
    config = EsViTConfig(embed_dim=8, depths=[2, 2, 2, 2], num_heads=[2, 2, 4, 8])
    model = EsViTModel(config).eval()
    fresh = EsViTModel(config).eval()
    fresh.load_state_dict(model.state_dict())
    batch = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        model(torch.randn(2, 3, 96, 96))
        model(torch.randn(1, 3, 40, 130))
        assert torch.equal(model(batch).last_hidden_state, fresh(batch).last_hidden_state)


# ---- packed groups ---------------------------------------------------------------------------------------------------


GROUPS = [(2, 3, 48, 48), (3, 3, 20, 20), (1, 3, 33, 56)]


def force_draws(monkeypatch, factors, first):
    """DropPath takes row k of `factors`, from image `first` on, at its k-th draw."""
    rows = iter(factors)
    monkeypatch.setattr(EsViTDropPath, "draw", lambda self, n, like: next(rows)[first : first + n].to(like))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("fields", [{"drop_path_rate": 0.3}, {"use_absolute_embeddings": True, "qkv_bias": False}])
@pytest.mark.parametrize("part_tokens", [200, 10**6])
def test_packed_equals_separate(monkeypatch, attention, fields, part_tokens):
    """All groups at once, in parts of some images or in one, against one group after the other."""
    monkeypatch.setattr(swin, "PART_TOKENS", part_tokens)
    model = build(EsViTForPreTraining, attention, **fields).train()
    groups = [images(*shape) for shape in GROUPS]
    factors = torch.randint(0, 2, (100, 6), generator=torch.Generator().manual_seed(3)) / 0.7
    first = [0, 2, 5]

    def run(parts):
        outputs = []
        for start, group in parts:
            force_draws(monkeypatch, factors, start)
            outputs.append(model(group))
        names = ("view_embeddings", "region_features", "region_embeddings")
        values = [torch.cat([output[name] for output in outputs]) for name in names]
        weights = [torch.sin(torch.arange(value.numel()).double()).view_as(value) for value in values]
        loss = sum((value * weight).sum() for value, weight in zip(values, weights, strict=True))
        gradients = torch.autograd.grad(loss, [p for p in model.esvit.parameters()])
        return [*values, *gradients]

    packed = run([(0, groups)])
    separate = run(zip(first, groups, strict=True))
    tolerance = 1e-5 if attention == "eager" else 1e-9  # eager's softmax is in single precision
    for one, other in zip(packed, separate, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_norms_and_activations_are_not_stored():
    """Of what a block computes, only its input, q, k, v, the attention weights and three outputs wait for backward."""
    model = build(EsViTModel).train()
    pixels, stored = images(1, 3, 32, 32), {}

    def remember(tensor):
        stored[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    computed = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: computed.append(output))
        for name, module in model.named_modules()
        if name.endswith(("norm1", "norm2", "act"))
    ]
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        output = model(pixels)
    assert len(computed) == len(hooks) > 0
    kept = list(stored.values())
    for tensor in computed:
        assert not any(k.numel() == tensor.numel() and torch.equal(k.flatten(), tensor.flatten()) for k in kept)
    output.pooler_output.sum().backward()
    assert len(computed) == 2 * len(hooks)


def test_drop_path_draws_once_a_sample_and_branch(monkeypatch):
    model = build(drop_path_rate=0.5).train()
    draws = []
    draw = EsViTDropPath.draw

    def recorded(self, num_samples, like):
        factors = draw(self, num_samples, like)
        draws.append((self.rate, factors))
        return factors

    monkeypatch.setattr(EsViTDropPath, "draw", recorded)
    model([images(*shape) for shape in GROUPS])
    rates = [0.1 * block for block in range(1, 6) for _ in ("attention", "mlp")]  # the first block's rate is 0
    assert [rate for rate, _ in draws] == pytest.approx(rates)
    for rate, factors in draws:
        assert factors.shape == (6,)
        assert all(factor == 0 or factor == pytest.approx(1 / (1 - rate)) for factor in factors.tolist())
    factors = EsViTDropPath(0.25).draw(20000, torch.zeros(1))
    assert (factors == 0).float().mean() == pytest.approx(0.25, abs=0.02)


def test_absolute_position_embedding_follows_the_image():
    model = build(use_absolute_embeddings=True)
    embed = model.encoder.patch_embed
    assert embed.absolute_pos_embed.shape == (1, 12 * 12, 8)
    with torch.no_grad():
        own, _ = embed([images(1, 3, 48, 48)])
        other, _ = embed([images(1, 3, 24, 60)])
        table = embed.absolute_pos_embed.clone()
        embed.absolute_pos_embed.zero_()
        torch.testing.assert_close(own - embed([images(1, 3, 48, 48)])[0], table)
        resized = F.interpolate(table.view(1, 12, 12, 8).permute(0, 3, 1, 2), size=(6, 15), mode="bicubic")
        added = other - embed([images(1, 3, 24, 60)])[0]
        torch.testing.assert_close(added, resized.permute(0, 2, 3, 1).flatten(1, 2))
