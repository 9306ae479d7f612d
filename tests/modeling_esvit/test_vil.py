# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""ViL against a plain form, images of any size, crops together, impossible configurations, weights on request."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from modeling_esvit import EsViTBackbone, EsViTConfig, EsViTForPreTraining, EsViTInputError, EsViTModel
from tests.benchmarks.reference_vil import backbone


# Of both kinds of attention, with and without global tokens.
POSITIONS = {"absolute_positions": [1, 1, 1, 1], "global_tokens": [1, 0, 1, 0]}
MIXED = {"absolute_positions": [1, 0, 0, 1], "global_tokens": [2, 1, 1, 0]}


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
            if "bias" in name or "cls_token" in name or "pos_embed" in name:
                parameter.normal_()
    return model


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("changes", [{}, POSITIONS, MIXED], ids=["biases", "positions", "mixed"])
@pytest.mark.parametrize("height, width", [(64, 64), (128, 128), (45, 100), (32, 33), (64, 256)])
def test_any_height_and_width(height, width, changes, attention):
    """Also 128 px, where the original's resized bias came out one too short."""
    model = random_model(EsViTForPreTraining, **changes)
    model.set_attn_implementation(attention)
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    output = model.esvit(images)
    rows, columns = model.config.region_grid(height, width)
    assert output.last_hidden_state.shape == (2, rows * columns, 64)
    view, regions = backbone(model, images)
    torch.testing.assert_close(output.pooler_output, view)
    torch.testing.assert_close(output.last_hidden_state, regions)


def test_crops_of_two_sizes_and_recomputed_gradients():
    """Packed groups have the outputs that each has alone; recomputation changes no gradient."""
    model = random_model(EsViTForPreTraining, **POSITIONS, drop_path_rate=0.0)
    groups = [torch.randn(2, 3, 64, 64, dtype=torch.float64), torch.randn(3, 3, 32, 32, dtype=torch.float64)]

    def gradients(*inputs) -> list[torch.Tensor]:
        model.zero_grad()
        sum(model(each).view_embeddings[:, 0].sum() for each in inputs).backward()
        return [parameter.grad.clone() for parameter in model.esvit.parameters()]

    together, alone = gradients(groups), gradients(*groups)
    model.train().gradient_checkpointing_enable()
    for packed, separate, again in zip(together, alone, gradients(groups), strict=True):
        torch.testing.assert_close(packed, separate)
        torch.testing.assert_close(packed, again)
        assert packed.any()


def test_images_that_are_too_small():
    with pytest.raises(EsViTInputError, match="31 x 64 pixels leaves no token for stage 4; enlarge it to at least 32"):
        random_model(EsViTModel)(torch.randn(1, 3, 31, 64))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch_strides": [4, 0, 2, 2]}, r"patch_strides \[4, 0, 2, 2\] must be at least 1 in every stage"),
        ({"global_tokens": [1, -1, 1, 0]}, r"global_tokens \[1, -1, 1, 0\] must be at least 0"),
        ({"sparse_stages": [2, 1, 0, 0]}, r"sparse_stages \[2, 1, 0, 0\] must be 1 \(sparse\) or 0 \(full\)"),
        ({"absolute_positions": [1, 1]}, r"absolute_positions \[1, 1\] must have one entry per stage"),
        ({"absolute_positions": [0, 0]}, r"absolute_positions \[0, 0\] must have one entry per stage"),
        (
            {"absolute_positions": [1, 2, 0, 0]},
            r"absolute_positions \[1, 2, 0, 0\] must be 1 .* or 0 .* in every stage",
        ),
        (
            {"absolute_positions": [0, 1, 0, 0], "stage_dims": [8, 15, 32, 64], "num_heads": [1, 3, 2, 4]},
            r"absolute_positions\[1\] is 1, .* the width 15 of stage 1 must be even",
        ),
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
@pytest.mark.parametrize("changes", [{}, {"absolute_positions": [1, 0, 1, 1]}], ids=["biases", "positions"])
def test_attentions(changes):
    """Of local queries by chunk, of global ones; hidden keys have none; features stay as they are."""
    model = random_model(EsViTModel, **changes)
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
    positions = {"absolute_positions": [0, 1, 0, 1]}
    model = EsViTModel(small_config(embed_dim=96, depths=[1, 1, 1, 1], num_heads=[3, 6, 12, 24], **positions))
    for name, parameter in model.named_parameters():
        if "relative_position_bias" in name or "cls_token" in name or "pos_embed" in name:
            assert 0 < parameter.abs().max() < 0.1, name
        elif name.endswith(("attn.query.weight", "attn.kv.weight", "attn.qkv.weight", "fc1.weight")):
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name


@pytest.mark.slow
@pytest.mark.parametrize("positions", [None, [1, 1]])
def test_training_compiles_without_graph_break(positions):
    two_stages = {"patch_strides": [4, 2], "sparse_stages": [1, 0], "global_tokens": [1, 0]}
    two_stages["absolute_positions"] = positions
    config = small_config(depths=[1, 1], num_heads=[1, 2], vil_mode=1, **two_stages)
    model = EsViTModel(config).train()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    compiled(torch.randn(2, 3, 64, 64)).pooler_output.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
