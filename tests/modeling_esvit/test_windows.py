# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""One gather against padding, rolling, cutting and transposing, each by torch's own function."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F

from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.tokens import EncoderRequest
from modeling_esvit.windows import (
    ToTokens,
    ToWindows,
    compute_padded_size,
    cut_windows,
    index_windows,
    is_padded,
    join_windows,
    pad_rows,
    split_heads,
    to_tokens,
    to_windows,
)


CASES = {
    "one map": ([(2, 8, 8)], 4, 0),
    "shifted": ([(2, 8, 12)], 4, 2),
    "padded": ([(3, 6, 9)], 4, 0),
    "padded, shifted": ([(3, 6, 9)], 4, 1),
    "smaller than a window": ([(2, 3, 2)], 7, 3),
    "several": ([(2, 8, 8), (3, 5, 7), (1, 2, 4)], 4, 2),
}
HEADS, WIDTH = 3, 5


def cut(group: torch.Tensor, window: int, shift: int) -> torch.Tensor:
    """`[n, h, w, k * HEADS * WIDTH]` -> `[k, n, windows, HEADS, window**2, WIDTH]`."""
    n, h, w, _ = group.shape
    height, width = compute_padded_size(h, w, window)
    group = F.pad(group, (0, 0, 0, width - w, 0, height - h)).roll((-shift, -shift), dims=(1, 2))
    group = group.reshape(n, height // window, window, width // window, window, -1, HEADS, WIDTH)
    return group.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6).flatten(2, 3)


def random_groups(grids, channels: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(n, h, w, channels, dtype=torch.float64) for n, h, w in grids]


@pytest.mark.parametrize(("grids", "window", "shift"), CASES.values(), ids=CASES)
def test_to_windows(grids, window, shift):
    groups = random_groups(grids, 3 * HEADS * WIDTH)
    rows = torch.cat([group.flatten(0, 2) for group in groups])
    if is_padded(grids, window):
        rows = F.pad(rows, (0, 0, 0, 1))
    windows = to_windows(rows.view(-1, WIDTH), grids, window, shift, HEADS)
    expected = torch.cat([cut(group, window, shift).flatten() for group in groups])
    assert torch.equal(windows.flatten(), expected)


@pytest.mark.parametrize(("grids", "window", "shift"), CASES.values(), ids=CASES)
def test_there_and_back(grids, window, shift):
    """The outputs of a group are the cut values themselves, so the tokens come back as they were."""
    groups = random_groups(grids, HEADS * WIDTH)
    rows = torch.cat([cut(group, window, shift).reshape(-1, WIDTH) for group in groups])
    tokens = to_tokens(rows, grids, window, shift, HEADS)
    assert torch.equal(tokens.flatten(), torch.cat([group.flatten() for group in groups]))


@pytest.mark.parametrize(("grids", "window", "shift"), CASES.values(), ids=CASES)
def test_windows_step_by_step(grids, window, shift):
    """Cut before the projection, heads are views of the same values; joined, the tokens come back as they were."""
    for group, grid in zip(random_groups(grids, 3 * HEADS * WIDTH), grids, strict=True):
        windows = cut_windows(group, window, shift)
        expected = cut(group, window, shift).flatten(1, 2)  # [3, n * windows, HEADS, window**2, WIDTH]
        assert torch.equal(torch.stack(split_heads(windows, HEADS)), expected)
        assert torch.equal(join_windows(windows, grid, window, shift), group)


@pytest.mark.parametrize(("grids", "window", "shift"), CASES.values(), ids=CASES)
def test_gradients(grids, window, shift):
    """Against finite differences, to second order: the padding's row collects from all its places."""
    index = index_windows(tuple(grids), window, shift, 1)
    num_tokens = sum(n * h * w for n, h, w in grids)
    rows = torch.randn(3 * (num_tokens + is_padded(grids, window)), 1, dtype=torch.float64, requires_grad=True)
    outputs = torch.randn(len(index.from_tokens), 1, dtype=torch.float64, requires_grad=True)
    to_windows = (index.to_windows, index.from_windows, index.padding)
    to_tokens = (index.to_tokens, index.from_tokens, index.output_padding)
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        forward = {"check_forward_ad": True} if check is torch.autograd.gradcheck else {}
        assert check(lambda rows: ToWindows.apply(rows, *to_windows).square(), rows, fast_mode=True, **forward)
        assert check(lambda rows: ToTokens.apply(rows, *to_tokens).square(), outputs, fast_mode=True, **forward)


def test_rows_of_a_bias_are_aligned():
    """Fused attention reads 16 bytes at a time: a row of 49 bfloat16 would begin anywhere."""
    bias = torch.randn(3, 49, 49)
    padded = pad_rows(bias)
    assert padded.shape == (3, 49, 64) and torch.equal(padded[..., :49], bias) and not padded[..., 49:].any()


def small_model() -> EsViTModel:
    config = EsViTConfig(
        image_size=32, embed_dim=16, depths=[2, 1], num_heads=[2, 4], window_size=4, drop_path_rate=0.0
    )
    return EsViTModel(config).eval()


def test_what_inference_has_cached_serves_training():
    model = small_model()
    pixels = torch.randn(1, 3, 36, 52)
    with torch.inference_mode():
        features = model(pixels).pooler_output
    trained = model.train()(pixels).pooler_output
    trained.sum().backward()
    torch.testing.assert_close(features, trained.detach())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_fake_pass_leaves_nothing_behind():
    """Estimators of memory run a model on tensors without values, of the very shapes that the real run will have."""
    index_windows.cache_clear()
    model = small_model()
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert model(torch.randn(1, 3, 44, 36)).pooler_output.shape == (1, 32)
    assert model(torch.randn(1, 3, 44, 36)).pooler_output.isfinite().all()


def test_function_transforms():
    model, images = small_model(), torch.randn(2, 1, 3, 36, 52)
    model.set_attn_implementation("eager")  # the fused form has no gradient of its mask

    def feature(image: torch.Tensor) -> torch.Tensor:
        return model.encoder([image], EncoderRequest()).tokens.square().sum()

    each = torch.stack([torch.func.grad(feature)(image) for image in images])
    torch.testing.assert_close(torch.vmap(torch.func.grad(feature))(images), each)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[(36, 52)], [(32, 32), (20, 20)]], ids=["one group", "two groups"])
def test_inductor_gives_the_same(sizes):
    """Forward and backward, padded and shifted, through the compiler that a GPU run uses."""
    model = small_model()
    crops = [torch.randn(2, 3, *size) for size in sizes]
    results = []
    for encoder in (model.encoder, torch.compile(model.encoder, fullgraph=True, dynamic=False)):
        model.zero_grad()
        tokens = encoder(crops, EncoderRequest()).tokens
        tokens.square().sum().backward()
        results.append([tokens.detach(), *(p.grad.clone() for p in model.parameters())])
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)
