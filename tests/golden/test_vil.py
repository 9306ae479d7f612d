# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares the ViL backbone to the original (microsoft/esvit, MIT).

Its sparse attention alone, and features, stages, modes, multi-crop outputs and gradients of a small model.
"""

import pytest
import torch

from modeling_esvit import EsViTConfig
from modeling_esvit.vil_attention import EsViTViLSparseAttention, index_chunk_positions
from tests.helpers.accelerator import attention_for
from tests.helpers.golden import compute_logits, cotangents, crop_groups, load, metadata, thin, to_original_key
from tests.helpers.vil_models import golden_model


TOLERANCE = {"rtol": 0, "atol": 1e-5}
PLACES = {direction: direction - 1 + (direction > 4) for direction in range(1, 9)}  # the original's neighbours


@pytest.fixture(params=["eager", "sdpa", "accelerator"])
def attention(request):
    with attention_for(request.param) as name:
        yield name


def force_draws(monkeypatch, directions: list[int]) -> None:
    """Makes the next calls in training see these neighbours, by the original's numbers."""
    draws = iter(directions)
    monkeypatch.setattr(
        EsViTViLSparseAttention, "draw", lambda self, device: torch.tensor([PLACES[next(draws)]], device=device)
    )


# The sparse attention alone

VARIANTS = metadata("golden_vil_attention")["variants"]
MAPS = {"7x11": (7, 11), "3x3": (3, 3)}


def sparse_attention(name: str, implementation: str) -> EsViTViLSparseAttention:
    """Builds the attention of a golden variant."""
    variant = VARIANTS[name]
    config = EsViTConfig(
        architecture="vil",
        window_size=variant["w"],
        vil_exact_window=bool(variant["exact"]),
        vil_shared_weights=variant["sharew"],
        attn_implementation=implementation,
    )
    module = EsViTViLSparseAttention(config, 12, 2, variant["nglo"], has_biases=bool(variant["rpe"]))
    prefix = f"{name}.state."
    state = {key.removeprefix(prefix): value for key, value in golden_attention().items() if key.startswith(prefix)}
    module.load_state_dict(state)
    return module


def golden_attention() -> dict[str, torch.Tensor]:
    return load("golden_vil_attention")


def assert_attention(module: EsViTViLSparseAttention, name: str, size: str, case: str = "") -> None:
    golden = golden_attention()
    tokens = golden[f"{name}.{size}.x"].clone().requires_grad_()
    output, _ = module(tokens, *MAPS[size])
    torch.testing.assert_close(output, golden[f"{name}.{size}{case}.y"], **TOLERANCE)
    (output * golden[f"{name}.{size}.c"]).sum().backward()
    torch.testing.assert_close(tokens.grad, golden[f"{name}.{size}{case}.grad_x"], **TOLERANCE)
    table = f"{name}.{size}{case}.grad_rpe_table"
    if table in golden:
        torch.testing.assert_close(module.local_relative_position_bias_table.grad, golden[table], **TOLERANCE)


@pytest.mark.parametrize("name", VARIANTS)
def test_sparse_attention(name, attention):
    """Of all chunks around, on a map that needs padding (and, in one variant, on one smaller than its surroundings)."""
    for size in MAPS if name == "base" else ["7x11"]:
        assert_attention(sparse_attention(name, attention), name, size)


def test_own_chunk(attention):
    for size in MAPS:
        module = sparse_attention("base", attention)
        module.mode = -1
        assert_attention(module, "base", size, ".mode-1")


@pytest.mark.parametrize("direction", PLACES)
def test_one_neighbour(direction, attention, monkeypatch):
    for size in MAPS:
        module = sparse_attention("base", attention).train()
        module.mode = 1
        force_draws(monkeypatch, [direction])
        assert_attention(module, "base", size, f".mode{direction}")


@pytest.mark.parametrize("window", [3, 7])
def test_position_index(window):
    golden = load("golden_position_index")[f"vil_longformer_w{window}"]
    assert torch.equal(index_chunk_positions(window)[::5], golden.long())


# The whole network


@pytest.fixture(scope="module")
def golden():
    return load("golden_vil")


@torch.no_grad()
def test_features(golden, images, attention):
    model = golden_model(attention)
    for size in ("x224", "x96", "x200", "x168", "x101"):
        output = model.esvit(images[size])
        torch.testing.assert_close(output.pooler_output, golden[f"{size}.pooled"], **TOLERANCE)
        torch.testing.assert_close(output.last_hidden_state, golden[f"{size}.region"], **TOLERANCE)


@torch.no_grad()
def test_n_last_blocks(golden, images, attention):
    model = golden_model(attention)
    for size in ("x224", "x96"):
        for n in (1, 4):
            features = model.esvit.n_last_blocks_features(images[size], n)
            torch.testing.assert_close(features, golden[f"{size}.n_last_{n}"], **TOLERANCE)


@pytest.mark.parametrize("size", ["x224", "x96"])
@torch.no_grad()
def test_stages(golden, images, size):
    """The original's have their global tokens in front, which go no further."""
    output = golden_model("eager").esvit(images[size], output_hidden_states=True)
    for stage, num_global in ((1, 1), (2, 1), (3, 0)):
        key = f"{size}.b0.stage{stage}.last_block"
        tokens = output.hidden_states[stage + 1][:1]
        kept = torch.arange(0, num_global + tokens.shape[1], 5)[num_global:]
        torch.testing.assert_close(tokens[:, kept - num_global], golden[key][:, num_global:], **TOLERANCE)


@torch.no_grad()
def test_own_chunks_everywhere(golden, images):
    model = golden_model("eager")
    model.esvit.encoder.set_mode(-1)
    for size in ("x224", "x96"):
        output = model.esvit(images[size])
        torch.testing.assert_close(output.pooler_output, golden[f"mode-1.{size}.pooled"], **TOLERANCE)
        torch.testing.assert_close(output.last_hidden_state, golden[f"mode-1.{size}.region"], **TOLERANCE)


@pytest.mark.parametrize("direction", PLACES)
@torch.no_grad()
def test_one_neighbour_everywhere(golden, images, direction, monkeypatch):
    model = golden_model("eager").train()
    for size in ("x224", "x96"):
        force_draws(monkeypatch, [direction] * 2)
        pooled = model.esvit(images[size]).pooler_output
        torch.testing.assert_close(pooled, golden[f"train_mode{direction}.{size}.pooled"], **TOLERANCE)


@torch.no_grad()
def test_each_attention_draws_for_each_pass(golden, images, monkeypatch):
    """Three passes of training with what the original drew: a neighbour for each of two attentions, in order."""
    model = golden_model("eager").train()
    force_draws(monkeypatch, golden["train_random_seed7.modes_drawn"].tolist())
    for call in range(3):
        pooled = model.esvit(images["x96"]).pooler_output
        torch.testing.assert_close(pooled, golden[f"train_random_seed7.call{call}.x96.pooled"], **TOLERANCE)


@torch.no_grad()
def test_crops_together(golden, attention):
    output = golden_model(attention)(crop_groups())
    view, region = compute_logits(output)
    torch.testing.assert_close(view, golden["mc.head"], **TOLERANCE)
    torch.testing.assert_close(thin("mc.head_dense", region), golden["mc.head_dense"], **TOLERANCE)
    torch.testing.assert_close(thin("mc.fea", output.region_features), golden["mc.fea"], **TOLERANCE)
    view, region = compute_logits(golden_model(attention, region_head=False)(crop_groups()))
    torch.testing.assert_close(view, golden["mc.view_only.head"], **TOLERANCE)
    assert region is None


def test_gradients(golden, attention):
    """Of a fixed linear function of all logits, within 1e-5 of each tensor's largest entry."""
    model = golden_model(attention)
    view, region = compute_logits(model(crop_groups()))
    factors = cotangents(len(view), *region.shape, seed=metadata("golden_vil")["cotangent_seed"])
    loss = (view * factors[0]).sum() / len(view) + (region * factors[1]).sum() / len(region)
    torch.testing.assert_close(loss, golden["bwd.loss"], rtol=1e-5, atol=0)
    loss.backward()
    for key, parameter in model.named_parameters():
        original = to_original_key(key)
        if f"bwd.grad.{original}" in golden:
            ours, expected = parameter.grad, golden[f"bwd.grad.{original}"]
        else:
            ours, expected = parameter.grad[:4], golden[f"bwd.grad_rows4.{original}"]
            norm = golden[f"bwd.gradnorm.{original}"]
            torch.testing.assert_close(parameter.grad.norm(), norm, rtol=1e-5, atol=1e-7)
        ours, expected = without_key_bias(key, ours), without_key_bias(key, expected)
        tolerance = 1e-5 * expected.abs().max().item() + 1e-7
        torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance, msg=lambda m, key=key: f"{key}: {m}")


def without_key_bias(key: str, gradient: torch.Tensor) -> torch.Tensor:
    """Leaves out the bias of the keys: softmax cancels it, so that its gradient is rounding noise."""
    if key.endswith("qkv.bias"):
        query, _, value = gradient.chunk(3)
        return torch.cat([query, value])
    return gradient.chunk(2)[1] if key.endswith("kv.bias") else gradient
