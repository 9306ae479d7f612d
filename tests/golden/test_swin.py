# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares the Swin backbone and the projection heads to the original (microsoft/esvit, MIT).

Features, attention maps, stages, multi-crop outputs and gradients of two small models, with window 7 and 14.
"""

import re

import pytest
import torch

from modeling_esvit import EsViTConfig
from modeling_esvit.projection_head import EsViTProjectionHead
from modeling_esvit.windows import index_relative_positions
from tests.helpers.accelerator import attention_for
from tests.helpers.golden import (
    compute_logits,
    cotangents,
    crop_groups,
    load,
    pretraining_model,
    thin,
    to_original_key,
)


TOLERANCE = {"rtol": 0, "atol": 2e-5}
SIZES = {"swin_w7": ["x224", "x96", "x200", "x168", "x101"], "swin_w14": ["x224", "x96", "x200", "x168"]}
LAST_BLOCKS = {"swin_w7": [1, 4, 5, 8], "swin_w14": [4]}
LAYERS = {
    ("swin_w7", "x224"): [0, 1, 2, 3, 4, 5, 6, 7],
    ("swin_w7", "x96"): [1, 2, 3, 4, 5, 6, 7],
    ("swin_w14", "x224"): [7],
    ("swin_w14", "x96"): [7],
}
# The original's name of each of `reshaped_hidden_states`, after and before patch merging.
MERGED = {"patch_embed": 0, "stage0.out": 1, "stage1.out": 2, "stage2.out": 3, "stage3.last_block": 4}
UNMERGED = {"patch_embed": 0, "stage2.last_block": 3, "stage3.last_block": 4}


@pytest.fixture(scope="module", params=["swin_w7", "swin_w14"])
def name(request):
    return request.param


@pytest.fixture(scope="module", params=["eager", "sdpa", "accelerator"])
def attention(request):
    with attention_for(request.param) as name:
        yield name


@pytest.fixture(scope="module")
def golden(name):
    return load(f"golden_{name}")


@pytest.fixture(scope="module")
def model(name, attention):
    return pretraining_model(f"golden_{name}", attention)


@torch.no_grad()
def test_features(name, golden, model, images):
    for size in SIZES[name]:
        output = model.esvit(images[size])
        torch.testing.assert_close(output.pooler_output, golden[f"{size}.pooled"], **TOLERANCE)
        torch.testing.assert_close(output.last_hidden_state, golden[f"{size}.region"], **TOLERANCE)


@torch.no_grad()
def test_n_last_blocks(name, golden, model, images):
    for n in LAST_BLOCKS[name]:
        for size in ("x224", "x96"):
            if f"{size}.n_last_{n}" not in golden:
                pytest.fail(f"{name} has no {size}.n_last_{n}")
            features = model.esvit.n_last_blocks_features(images[size], n)
            torch.testing.assert_close(features, golden[f"{size}.n_last_{n}"], **TOLERANCE)


@pytest.mark.parametrize("size", ["x224", "x96"])
@pytest.mark.parametrize("before_merging, stages", [(False, MERGED), (True, UNMERGED)])
@torch.no_grad()
def test_stages(golden, model, images, size, before_merging, stages):
    output = model.esvit(images[size], output_hidden_states=True, output_maps_before_merging=before_merging)
    for stage, index in stages.items():
        if (size, stage) == ("x224", "patch_embed"):
            continue  # not recorded
        key = f"{size}.b0.{stage}"
        tokens = output.reshaped_hidden_states[index][:1].flatten(2).transpose(1, 2)
        torch.testing.assert_close(thin(key, tokens), golden[key], **TOLERANCE)


@pytest.mark.parametrize("size", ["x224", "x96"])
@torch.no_grad()
def test_attentions(name, golden, model, images, size):
    """Whatever implementation is set, asking for them returns them and leaves the features as they are."""
    output = model.esvit(images[size], output_attentions=True)
    assert len(output.attentions) == 8
    torch.testing.assert_close(output.pooler_output, golden[f"{size}.pooled"], **TOLERANCE)
    for layer in LAYERS[name, size]:
        (key,) = (key for key in golden if re.fullmatch(rf"{size}\.b0\.attn({layer}|{layer}\.sel)", key))
        windows = golden.get(f"{size}.b0.attn{layer}.windows", torch.arange(len(golden[key])))
        torch.testing.assert_close(thin(key, output.attentions[layer][windows]), golden[key], **TOLERANCE)


def test_relative_position_index():
    golden = load("golden_position_index")
    for window in (7, 14):
        index = index_relative_positions(window).view(window**2, window**2)
        assert torch.equal(index[::5], golden[f"swin_window{window}"].long())


@torch.no_grad()
def test_crops_together(golden, model):
    """All crops of both sizes in one pass: logits of both heads and region features."""
    output = model(crop_groups())
    view, region = compute_logits(output)
    torch.testing.assert_close(view, golden["mc.head"], **TOLERANCE)
    torch.testing.assert_close(thin("mc.head_dense", region), golden["mc.head_dense"], **TOLERANCE)
    torch.testing.assert_close(thin("mc.fea", output.region_features), golden["mc.fea"], **TOLERANCE)


@torch.no_grad()
def test_crops_together_without_region_head(name, golden, attention):
    view, region = compute_logits(pretraining_model(f"golden_{name}", attention, region_head=False)(crop_groups()))
    torch.testing.assert_close(view, golden["mc.view_only.head"], **TOLERANCE)
    assert region is None


def without_key_bias(key: str, gradient: torch.Tensor) -> torch.Tensor:
    """Leaves out the bias of the keys: softmax cancels it, so that its gradient is rounding noise."""
    if not key.endswith("qkv.bias"):
        return gradient
    query, _, value = gradient.chunk(3)
    return torch.cat([query, value])


def close_to_its_largest(key: str, gradient: torch.Tensor, expected: torch.Tensor) -> None:
    """Checks that tensors agree within 1e-5 of the largest entry."""
    scale = expected.abs().max().item()
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-5 * scale + 1e-7, msg=lambda m: f"{key}: {m}")


def test_gradients(attention):
    """Of a fixed linear function of all logits of the multi-crop pass."""
    golden = load("golden_swin_w7")
    model = pretraining_model("golden_swin_w7", attention)
    view, region = compute_logits(model(crop_groups()))
    view_factor, region_factor = cotangents(len(view), *region.shape)
    loss = (view * view_factor).sum() / len(view) + (region * region_factor).sum() / len(region)
    torch.testing.assert_close(loss, golden["bwd.loss"], rtol=1e-5, atol=0)
    loss.backward()
    compared = 0
    for key, parameter in model.named_parameters():
        original = to_original_key(key)
        if f"bwd.grad.{original}" in golden:
            expected = golden[f"bwd.grad.{original}"]
            close_to_its_largest(key, without_key_bias(key, parameter.grad), without_key_bias(key, expected))
        else:
            close_to_its_largest(key, parameter.grad[:4], golden[f"bwd.grad_rows4.{original}"])
            close_to_its_largest(key, parameter.grad.norm(), golden[f"bwd.gradnorm.{original}"])
        compared += 1
    assert compared == 135


HEADS = {
    "l3": {"head_num_layers": 3},
    "l3_bn": {"head_num_layers": 3, "head_batch_norm": True},
    "l2_nonorm": {"head_num_layers": 2, "norm_last_layer": False},
    "l1": {"head_num_layers": 1},
}


def golden_head(name: str) -> tuple[EsViTProjectionHead, dict[str, torch.Tensor]]:
    tensors = {
        key.removeprefix(f"head.{name}."): value
        for key, value in load("golden_heads").items()
        if key.startswith(f"head.{name}.")
    }
    config = EsViTConfig(
        embed_dim=12,
        depths=[1],
        num_heads=[1],
        num_prototypes=20,
        head_hidden_size=10,
        head_bottleneck_size=6,
        **HEADS[name],
    )
    head = EsViTProjectionHead(config)
    state = {key.removeprefix("state."): value for key, value in tensors.items() if key.startswith("state.")}
    # With one layer the original's MLP is that layer; ours is a sequence of one.
    head.load_state_dict({re.sub(r"^mlp\.(weight|bias)$", r"mlp.0.\1", key): value for key, value in state.items()})
    return head, tensors


@pytest.mark.parametrize("name", ["l3", "l2_nonorm", "l1"])
@torch.no_grad()
def test_projection_head(name):
    head, golden = golden_head(name)
    assert head.last_layer.weight_g.requires_grad == bool(golden["requires_grad_g"])
    output = head.eval()(golden["x"]) @ head.last_layer().T
    torch.testing.assert_close(output, golden["y_eval"], **TOLERANCE)


@torch.no_grad()
def test_projection_head_with_batch_norm():
    """The recorded state is the one after the training pass, which came after the evaluation: it is first undone."""
    head, golden = golden_head("l3_bn")
    norms = [layer for layer in head.mlp if isinstance(layer, torch.nn.BatchNorm1d)]
    for norm in norms:
        norm.momentum = -1 / 9  # inverts an update of momentum 0.1 with the same batch
    head.train()(golden["x"])
    output = head.eval()(golden["x"]) @ head.last_layer().T
    torch.testing.assert_close(output, golden["y_eval"], **TOLERANCE)
    for norm in norms:
        norm.momentum = 0.1
    output = head.train()(golden["x"]) @ head.last_layer().T
    torch.testing.assert_close(output, golden["y_train"], **TOLERANCE)
    for index, norm in zip((1, 4), norms, strict=True):
        torch.testing.assert_close(norm.running_mean, golden[f"after_train.mlp.{index}.running_mean"])
        torch.testing.assert_close(norm.running_var, golden[f"after_train.mlp.{index}.running_var"])
