# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares the ViT backbone to the original (microsoft/esvit, MIT) and to transformers' own ViT."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import ViTConfig, ViTModel

from modeling_esvit import EsViTBackbone, EsViTConfig, EsViTForPreTraining, EsViTInputError, EsViTModel
from tests.helpers.accelerator import attention_for
from tests.helpers.golden import crop_groups, load, pretraining_model, thin


TOLERANCE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module", params=["eager", "sdpa", "accelerator"])
def attention(request):
    with attention_for(request.param) as name:
        yield name


@pytest.fixture(scope="module")
def golden():
    return load("golden_vit_p16")


@pytest.fixture(scope="module")
def model(attention):
    return pretraining_model("golden_vit_p16", attention)


@torch.no_grad()
def test_features(golden, model, images):
    for size in ("x224", "x96", "x168", "x101"):
        output = model.esvit(images[size])
        torch.testing.assert_close(output.pooler_output, golden[f"{size}.pooled"], **TOLERANCE)
        torch.testing.assert_close(output.last_hidden_state, golden[f"{size}.region"], **TOLERANCE)


@pytest.mark.parametrize("size", ["x224", "x96"])
@pytest.mark.parametrize("n", [1, 4])
@torch.no_grad()
def test_n_last_blocks(golden, model, images, size, n):
    for append_mean, suffix in ((False, ""), (True, "_avgpool")):
        features = model.esvit.n_last_blocks_features(images[size], n, append_mean=append_mean)
        torch.testing.assert_close(features, golden[f"{size}.n_last_{n}{suffix}"], **TOLERANCE)


@torch.no_grad()
def test_attentions_and_hidden_states(golden, model, images):
    output = model.esvit(images["x96"][:1], output_attentions=True, output_hidden_states=True)
    assert [tuple(weights.shape) for weights in output.attentions] == 4 * [(1, 3, 37, 37)]
    for block, weights in enumerate(output.attentions):
        key = f"x96.b0.attn{block}"
        torch.testing.assert_close(thin(key, weights), golden[key], **TOLERANCE)
    class_rows = model.esvit(images["x224"][:1], output_attentions=True).attentions[-1][:, :, 0]
    key = "x224.b0.attn3_cls_row"
    torch.testing.assert_close(thin(key, class_rows), golden[key], **TOLERANCE)
    assert [tuple(state.shape) for state in output.hidden_states] == 5 * [(1, 37, 24)]
    last = model.esvit.encoder.norm(output.hidden_states[-1])
    torch.testing.assert_close(last, golden["x96.feature_maps"], **TOLERANCE)
    for state, feature_map in zip(output.hidden_states, output.reshaped_hidden_states, strict=True):
        assert torch.equal(feature_map.flatten(2).transpose(1, 2), state[:, 1:])


@torch.no_grad()
def test_crops_together(golden, model, attention):
    """All crops of both sizes in one pass: logits of both heads and region features."""
    output = model(crop_groups())
    view = output.view_embeddings @ output.view_prototypes.T
    region = output.region_embeddings @ output.region_prototypes.T
    torch.testing.assert_close(view, golden["mc.head"], **TOLERANCE)
    torch.testing.assert_close(region[::7], golden["mc.head_dense.every7"], **TOLERANCE)
    torch.testing.assert_close(thin("mc.fea", output.region_features), golden["mc.fea"], **TOLERANCE)
    view_only = pretraining_model("golden_vit_p16", attention, region_head=False)(crop_groups())
    view = view_only.view_embeddings @ view_only.view_prototypes.T
    torch.testing.assert_close(view, golden["mc.view_only.head"], **TOLERANCE)
    assert view_only.region_embeddings is None


# -- beside the original -----------------------------------------------------------------------------------------------


def small_config(**fields) -> EsViTConfig:
    sizes = {"image_size": 32, "patch_size": 8, "embed_dim": 8, "depths": [3], "num_heads": [2]}
    heads = {"num_prototypes": 16, "head_hidden_size": 12, "head_bottleneck_size": 8}
    return EsViTConfig(architecture="vit", **{**sizes, **heads, **fields})


@pytest.mark.parametrize(
    ("name", "parameters"), [("deit-tiny", 5_524_416), ("deit-small", 21_665_664), ("vit-base", 85_798_656)]
)
def test_published_architectures(name, parameters):
    with torch.device("meta"):
        model = EsViTModel(EsViTConfig.from_architecture(name))
        finer = EsViTModel(EsViTConfig.from_architecture(name, patch_size=8))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == 150
    width = model.config.hidden_size
    assert finer.encoder.pos_embed.shape == (1, 785, width) and finer.encoder.patch_embed.proj.kernel_size == (8, 8)
    assert model.config.drop_path_rate == 0.1


def to_native(name: str) -> str:
    for ours, native in (
        ("attn.proj", "attention.o_proj"),
        ("norm1", "layernorm_before"),
        ("norm2", "layernorm_after"),
    ):
        name = name.replace(ours, native)
    if name.startswith("blocks."):
        return f"layers.{name.removeprefix('blocks.')}"
    stem = {"cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings"}
    name = stem.get(name, name).replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
    return f"layernorm.{name.removeprefix('norm.')}" if name.startswith("norm.") else name


def native_state(model: EsViTModel) -> dict[str, torch.Tensor]:
    state = {}
    for name, tensor in model.encoder.state_dict().items():
        if ".attn.qkv." in name:
            for part, values in zip("qkv", tensor.chunk(3), strict=True):
                state[to_native(name).replace("attn.qkv", f"attention.{part}_proj")] = values
        else:
            state[to_native(name)] = tensor
    return state


@pytest.mark.parametrize("size", [(32, 32), (24, 24), (48, 24), (37, 59)])
@torch.no_grad()
def test_equals_the_vit_of_transformers(size):
    """Also on rectangles, which the original does not take."""
    model = EsViTModel(small_config()).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    fields = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    native_config = ViTConfig(**fields, image_size=32, patch_size=8, layer_norm_eps=1e-6)
    native = ViTModel(native_config, add_pooling_layer=False).eval()
    native.load_state_dict(native_state(model))
    # transformers' ViT refuses a side that is no multiple of the patch; ours drops what is beyond.
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    whole = image[:, :, : size[0] // 8 * 8, : size[1] // 8 * 8]
    expected = native(whole, interpolate_pos_encoding=True).last_hidden_state
    output = model(image)
    torch.testing.assert_close(output.pooler_output, expected[:, 0], **TOLERANCE)
    torch.testing.assert_close(output.last_hidden_state, expected[:, 1:], **TOLERANCE)
    rows, columns = model.config.region_grid(*size)
    assert output.last_hidden_state.shape[1] == rows * columns


def gradients(model: EsViTForPreTraining, groups: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(0)
    output = model(groups)
    (output.view_embeddings @ output.view_prototypes.T)[:, 0].sum().backward(retain_graph=True)
    output.region_features.square().sum().backward()
    return {name: p.grad.clone() for name, p in model.esvit.named_parameters()}


def test_gradients_do_not_depend_on_packing_or_recomputation():
    torch.manual_seed(0)
    model = EsViTForPreTraining(small_config(drop_path_rate=0.0)).train()
    groups = [torch.randn(4, 3, 32, 32), torch.randn(6, 3, 16, 16)]
    packed = gradients(model, groups)
    separate = [gradients(model, [group]) for group in groups]
    for name, gradient in packed.items():
        torch.testing.assert_close(gradient, separate[0][name] + separate[1][name], rtol=1e-4, atol=1e-5)
    model.gradient_checkpointing_enable()
    for name, gradient in gradients(model, groups).items():
        torch.testing.assert_close(gradient, packed[name], rtol=1e-5, atol=1e-6)


def test_stochastic_depth_is_drawn_for_each_crop():
    """A dropped branch is dropped for the whole sequence: an image keeps its embedding or gets both factors."""
    model = EsViTModel(small_config(depths=[2], drop_path_rate=0.5)).train()
    layer = model.encoder.blocks[1]
    grids = [(64, 1, 5)]
    torch.manual_seed(0)
    factors = layer.drop_path(grids, torch.zeros(1)).view(64, 5)
    assert (factors == factors[:, :1]).all() and set(factors.flatten().tolist()) == {0.0, 2.0}
    assert model.encoder.blocks[0].drop_path(grids, torch.zeros(1)) is None


def test_initial_values():
    torch.manual_seed(0)
    encoder = EsViTModel(small_config(embed_dim=64, image_size=64)).encoder
    for table in (encoder.cls_token, encoder.pos_embed, encoder.blocks[0].attn.qkv.weight):
        assert table.detach().std() == pytest.approx(0.02, rel=0.2)
    bound = (3 * 8 * 8) ** -0.5
    assert encoder.patch_embed.proj.weight.detach().std() == pytest.approx(bound / 3**0.5, rel=0.05)


@torch.no_grad()
def test_backbone_gives_a_map_of_each_block():
    config = small_config(out_features=["stage1", "stage3"])
    backbone = EsViTBackbone(config).eval()
    image = torch.randn(2, 3, 24, 40)
    maps = backbone(image).feature_maps
    assert [tuple(m.shape) for m in maps] == 2 * [(2, 8, 3, 5)]
    regions = backbone.esvit(image).last_hidden_state
    torch.testing.assert_close(maps[-1].flatten(2).transpose(1, 2), regions)
    assert backbone.channels == [8, 8] and backbone.stage_names[-1] == "stage3"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depths": [2, 2], "num_heads": [2, 2]}, r"one stage; depths \[2, 2\]"),
        ({"num_heads": [3]}, r"num_heads\[0\]=3 must divide the width 8"),
        ({"patch_size": 64}, "image_size 32 is smaller than patch_size 64"),
    ],
)
def test_invalid_configurations_name_the_value(fields, message):
    with pytest.raises(StrictDataclassError, match=f"(?s){message}"):
        small_config(**fields)


def test_images_smaller_than_a_patch():
    with pytest.raises(EsViTInputError, match="7 x 32 pixels is smaller than one patch of 8 x 8"):
        EsViTModel(small_config())(torch.zeros(1, 3, 7, 32))
