# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The CvT backbone: a plain form of it, gradients, recomputation, attentions, maps, sizes, what is refused."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from modeling_esvit import EsViTBackbone, EsViTConfig, EsViTForPreTraining, EsViTInputError, EsViTModel
from tests.benchmarks.reference_cvt import plain_encoder
from tests.helpers.cvt_models import TINY, tiny_config


@pytest.fixture(params=["eager", "sdpa"])
def attention(request):
    return request.param


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomized(model: nn.Module, seed: int = 1) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype), alpha=0.2)
    return model


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (230, 150), (33, 41), (3, 5), (113, 300)])
def test_any_size_equals_the_plain_form(attention, training, size):
    model = randomized(EsViTModel._from_config(tiny_config(), attn_implementation=attention).double())
    model.train(training)
    pixels = images(2, 3, *size)
    expected = plain_encoder(model.encoder, pixels)
    output = model(pixels)
    torch.testing.assert_close(output.last_hidden_state, expected)
    torch.testing.assert_close(output.pooler_output, expected.mean(1))
    assert output.last_hidden_state.shape[1] == torch.tensor(model.config.region_grid(*size)).prod()


@pytest.mark.parametrize("recomputed", [False, True])
def test_gradients_equal_those_of_the_plain_form(attention, recomputed):
    """Of crops of two sizes in one pass, against two passes."""
    model = randomized(EsViTModel._from_config(tiny_config(), attn_implementation=attention).double()).train()
    if recomputed:
        model.gradient_checkpointing_enable()
    crops = [images(4, 3, 64, 64), images(6, 3, 32, 48, seed=1)]
    torch.cat([plain_encoder(model.encoder, group).flatten(0, 1) for group in crops]).square().sin().sum().backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model(crops).last_hidden_state.square().sin().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=lambda text, name=name: f"{name}: {text}")


def test_recomputation_moves_running_statistics_once():
    states = []
    for recomputed in (False, True):
        torch.manual_seed(0)
        model = EsViTModel(tiny_config()).train()
        if recomputed:
            model.gradient_checkpointing_enable()
        model(images(2, 3, 64, 64).float()).pooler_output.square().sum().backward()
        states.append(dict(model.named_buffers()))
    assert states[0]["encoder.stage0.1.layers.0.0.fn.qkv.bn.num_batches_tracked"] == 1
    assert states[0]["encoder.stage0.1.layers.0.0.fn.qkv.bn.running_mean"].abs().max() > 0
    for name, buffer in states[0].items():
        torch.testing.assert_close(buffer, states[1][name])


def test_stochastic_depth_drops_whole_crops():
    """With a rate of nearly 1 the last block, whose own it is, adds nothing to most crops."""
    model = EsViTModel(tiny_config(depths=[1, 1, 1, 1], drop_path_rate=0.999)).train()
    with torch.no_grad():
        states = model(images(32, 3, 32, 32).float(), output_hidden_states=True).reshaped_hidden_states
        embedded = model.encoder.stage3[0]([states[-2]])[0]
    torch.testing.assert_close(states[-1].flatten(2).transpose(1, 2)[:4], embedded[:4])


def test_attentions(attention):
    model = EsViTModel._from_config(tiny_config(), attn_implementation=attention).eval()
    groups = [images(2, 3, 64, 64).float(), images(3, 3, 40, 32).float()]
    shapes = [(2 * 9, 1, 7), (2 * 4, 2, 7), (2 * 4, 2, 7), (2, 2, 4), (2, 4, 2)]
    output = model(groups[0], output_attentions=True)
    assert [tuple(w.shape) for w in output.attentions] == [(n, heads, s * s, s * s) for n, heads, s in shapes]
    for weights in output.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    both = model(groups, output_attentions=True).attentions
    torch.testing.assert_close([first for first, _ in both], list(output.attentions))
    assert model(groups[0]).attentions is None


def test_maps_and_hidden_states():
    config = tiny_config(out_features=["stem", "stage1", "stage4"])
    backbone = EsViTBackbone(config).eval()
    assert backbone.channels == [8, 8, 32]
    pixels = images(2, 3, 70, 96).float()
    maps = backbone(pixels).feature_maps
    assert [tuple(m.shape) for m in maps] == [(2, 8, 17, 24), (2, 8, 17, 24), (2, 32, 3, 3)]
    output = backbone.esvit(pixels, output_hidden_states=True)
    torch.testing.assert_close(maps[-1].flatten(2).transpose(1, 2), output.last_hidden_state)
    assert len(output.hidden_states) == 5
    for state, reshaped in zip(output.hidden_states, output.reshaped_hidden_states, strict=True):
        torch.testing.assert_close(reshaped.flatten(2).transpose(1, 2), state)


def test_initialisation():
    model = EsViTForPreTraining(tiny_config(embed_dim=64, stage_dims=[64, 96, 128, 160], num_heads=[1, 2, 2, 4]))
    for name, parameter in model.esvit.encoder.named_parameters():
        if parameter.ndim == 4:
            expected = 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.15), name
        else:
            assert set(parameter.tolist()) == {1.0 if name.endswith("weight") else 0.0}, name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stage_dims": None}, "depths .* and stage_dims None must have one entry per stage"),
        ({"stage_dims": [8, 16, 24]}, r"stage_dims \[8, 16, 24\] must have one entry per stage"),
        ({"patch_kernels": [7, 3]}, r"patch_kernels \[7, 3\] must have one entry per stage"),
        ({"num_heads": [1, 2, 5, 4]}, r"num_heads\[2\]=5 must divide the width 24"),
        ({"embed_dim": 9}, r"embed_dim 9 must be the first of stage_dims \[8, 16, 24, 32\]"),
        ({"use_absolute_embeddings": True}, "use_absolute_embeddings is for a Swin"),
        ({"stage_dims": [8, 0, 24, 32]}, r"stage_dims \[8, 0, 24, 32\] must be at least 1 in every stage"),
        ({"stage_dims": [8, -16, 24, 32]}, r"stage_dims \[8, -16, 24, 32\] must be at least 1 in every stage"),
        ({"patch_strides": [4, 0, 2, 2]}, r"patch_strides \[4, 0, 2, 2\] must be at least 1 in every stage"),
        ({"patch_kernels": [7, 3, 0, 3]}, r"patch_kernels \[7, 3, 0, 3\] must be at least 1"),
        ({"patch_paddings": [2, -1, 1, 1]}, r"patch_paddings \[2, -1, 1, 1\] must be at least 0"),
    ],
)
def test_impossible_configurations(fields, message):
    with pytest.raises((StrictDataclassError, ValueError), match=f"(?s){message}"):
        EsViTConfig.from_architecture("cvt-tiny", **{**TINY, **fields})


def test_too_small_an_image():
    with pytest.raises(EsViTInputError, match="2 x 40 pixels is smaller than one patch"):
        EsViTModel(tiny_config())(torch.zeros(1, 3, 2, 40))
