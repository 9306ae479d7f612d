# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""ViL: sparse attention against a dense form, its memory, draws of chunks, sizes of images, weights on request."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from modeling_esvit import EsViTBackbone, EsViTConfig, EsViTForPreTraining, EsViTInputError, EsViTModel
from modeling_esvit.vil_attention import EsViTViLSparseAttention
from tests.benchmarks.reference_vil import backbone


def small_config(**changes) -> EsViTConfig:
    """Maps of 16, 8, 4 and 2 tokens a side at 64 px; chunks of 3."""
    fields = {"image_size": 64, "embed_dim": 8, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 2, 4], "window_size": 3}
    fields |= {"num_prototypes": 16, "head_hidden_size": 16, "head_bottleneck_size": 8}
    return EsViTConfig.from_architecture("vil-tiny", **{**fields, **changes})


def random_model(model_class, **changes):
    """In evaluation mode, float64, with no bias or token that is zero."""
    torch.manual_seed(0)
    model = model_class(small_config(**changes)).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name or "cls_token" in name:
                parameter.normal_()
    return model


def sparse_attention(num_global: int, window: int = 3) -> EsViTViLSparseAttention:
    torch.manual_seed(0)
    config = EsViTConfig(window_size=window, attn_implementation="eager")
    module = EsViTViLSparseAttention(config, dim=8, num_heads=2, num_global=num_global).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


@torch.no_grad()
@pytest.mark.parametrize("height, width", [(64, 64), (128, 128), (45, 100), (32, 33)])
def test_any_height_and_width(height, width):
    """Also 128 px, where the original's resized bias came out one too short."""
    model = random_model(EsViTForPreTraining)
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    output = model.esvit(images)
    rows, columns = model.config.region_grid(height, width)
    assert output.last_hidden_state.shape == (2, rows * columns, 64)
    view, regions = backbone(model, images)
    torch.testing.assert_close(output.pooler_output, view)
    torch.testing.assert_close(output.last_hidden_state, regions)


def test_images_that_are_too_small():
    with pytest.raises(EsViTInputError, match="31 x 64 pixels leaves no token for stage 4; enlarge it to at least 32"):
        random_model(EsViTModel)(torch.randn(1, 3, 31, 64))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch_strides": [4, 0, 2, 2]}, r"patch_strides \[4, 0, 2, 2\] must be at least 1 in every stage"),
        ({"global_tokens": [1, -1, 1, 0]}, r"global_tokens \[1, -1, 1, 0\] must be at least 0"),
        ({"sparse_stages": [2, 1, 0, 0]}, r"sparse_stages \[2, 1, 0, 0\] must be 1 \(sparse\) or 0 \(full\)"),
    ],
)
def test_impossible_configurations(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        small_config(**fields)


@torch.no_grad()
def test_global_tokens_in_the_last_stage_are_the_view():
    model = random_model(EsViTModel, global_tokens=[1, 1, 1, 2])
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    output = model(images)
    assert output.last_hidden_state.shape == (2, 4, 64)
    assert (output.pooler_output - output.last_hidden_state.mean(1)).abs().max() > 0.1
    assert torch.equal(model.n_last_blocks_features(images, 1), output.pooler_output)


@torch.no_grad()
def test_attentions():
    """Of local queries by chunk, of global ones; hidden keys have none; features stay as they are."""
    model = random_model(EsViTModel)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    output = model(images, output_attentions=True)
    torch.testing.assert_close(output.pooler_output, model(images).pooler_output)
    assert [type(weights) for weights in output.attentions] == [tuple] * 3 + [torch.Tensor] * 2
    local, to_all = output.attentions[0]
    assert local.shape == (2 * 36, 1, 9, 1 + 81) and to_all.shape == (2, 1, 1, 1 + 256)
    torch.testing.assert_close(local.sum(-1), torch.ones_like(local[..., 0]))
    # The first chunk of an image has nothing above it, the last one only one real token, in its corner.
    assert not local[0, ..., 1 : 1 + 27].any() and (local[0, ..., 1 + 4 * 9 : 1 + 5 * 9] > 0).all()
    own = local[35, ..., 1 + 4 * 9 : 1 + 5 * 9]
    assert (own[..., 0] > 0).all() and not own[..., 1:].any()


@torch.no_grad()
def test_backbone_maps():
    model = EsViTBackbone(small_config(out_features=["stem", "stage2", "stage4"])).eval()
    maps = model(torch.randn(2, 3, 64, 96)).feature_maps
    assert [tuple(m.shape) for m in maps] == [(2, 8, 16, 24), (2, 16, 8, 12), (2, 64, 2, 3)]


def test_initial_values():
    torch.manual_seed(0)
    model = EsViTModel(small_config(embed_dim=96, depths=[1, 1, 1, 1], num_heads=[3, 6, 12, 24]))
    for name, parameter in model.named_parameters():
        if "relative_position_bias" in name or "cls_token" in name:
            assert 0 < parameter.abs().max() < 0.1, name
        elif name.endswith(("attn.query.weight", "attn.kv.weight", "attn.qkv.weight", "fc1.weight")):
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name


@pytest.mark.slow
def test_training_compiles_without_graph_break():
    two_stages = {"patch_strides": [4, 2], "sparse_stages": [1, 0], "global_tokens": [1, 0]}
    config = small_config(depths=[1, 1], num_heads=[1, 2], vil_mode=1, **two_stages)
    model = EsViTModel(config).train()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    compiled(torch.randn(2, 3, 64, 64)).pooler_output.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
