# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Conversion of original ViL checkpoints, whose layout and weights are the original's (microsoft/esvit, MIT).
`original_vil_shapes.json` lists the tensors of its full-size network.
"""

import json

import pytest
import torch
from transformers import AutoModel, AutoModelForPreTraining

from modeling_esvit import EsViTBackbone, EsViTConfig, EsViTForPreTraining, EsViTModel
from modeling_esvit.convert_original.converter import (
    ConversionError,
    check_tensors,
    convert,
    infer_config,
    to_original_name,
    to_our_name,
)
from tests.helpers.golden import FIXTURES, draw_weights, inputs, load, metadata


ALIAS = "_global."


def golden_network() -> dict[str, torch.Tensor]:
    header = metadata("golden_vil")
    return draw_weights(header["parameters"], header["seed"])


def as_saved(network: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With what the original's state dict has beside its parameters: second names of shared weights, and indices."""
    saved = dict(network)
    for name, tensor in network.items():
        for linear in ("query", "kv", "proj"):
            is_sparse = name.split(".attn.")[0] + ".attn.kv.weight" in network
            if is_sparse and f".attn.{linear}." in name:
                saved[name.replace(f".{linear}.", f".{linear}_global.")] = tensor
        if name.endswith("bias_table"):
            saved[name.replace("local_relative_position_bias_table", "relative_position_index")] = torch.zeros(
                9, 81, dtype=torch.int64
            )
    return saved


def save(network: dict[str, torch.Tensor], path) -> str:
    torch.save({"teacher": {f"module.{name}": tensor for name, tensor in network.items()}}, path)
    return path


def test_outputs_equal_the_original(tmp_path):
    golden = load("golden_vil")
    report = str(convert(save(as_saved(golden_network()), tmp_path / "vil.pth"), tmp_path / "out"))
    assert "ViL, widths 12-24-48-96, depths 1-1-2-1, heads 1-2-4-8, window 7 at 224 px" in report
    model = AutoModel.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        for size in ("x224", "x96"):
            output = model(inputs()[size])
            torch.testing.assert_close(output.pooler_output, golden[f"{size}.pooled"], rtol=0, atol=1e-5)
            torch.testing.assert_close(output.last_hidden_state, golden[f"{size}.region"], rtol=0, atol=1e-5)
    assert isinstance(AutoModelForPreTraining.from_pretrained(tmp_path / "out"), EsViTForPreTraining)
    assert EsViTBackbone.from_pretrained(tmp_path / "out").channels == [96]


def test_weights_of_global_tokens_are_kept_where_they_differ(tmp_path):
    network = as_saved(golden_network())
    for name in network:
        if ALIAS in name:
            network[name] = network[name] + (0.1 if name.endswith("kv_global.weight") else 0)
    convert(save(network, tmp_path / "vil.pth"), tmp_path / "out")
    model = EsViTForPreTraining.from_pretrained(tmp_path / "out")
    assert not model.config.vil_shared_weights
    kept = model.state_dict()
    for name, tensor in network.items():
        if ALIAS in name:
            assert torch.equal(kept[to_our_name(name)], tensor)


def test_full_size():
    shapes = json.loads((FIXTURES / "original_vil_shapes.json").read_text())["vil_2262"]
    network = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    network = {name: tensor for name, tensor in network.items() if ALIAS not in name and "_index" not in name}
    config = infer_config(network)
    assert config.to_dict() == EsViTConfig.from_architecture("vil-tiny").to_dict()
    with torch.device("meta"):
        model = EsViTForPreTraining(config)
        backbone = list(EsViTModel(config).parameters())
    assert sum(parameter.numel() for parameter in backbone) == 27_569_352 and len(backbone) == 205
    expected = model.state_dict()
    found = {to_our_name(name): tensor for name, tensor in network.items()}
    check_tensors(expected, {**found, **{name: expected[name] for name in ("view_center", "region_center")}})


def test_construction_size_is_inferred(tmp_path):
    config = EsViTConfig.from_architecture("vil-tiny", image_size=160, embed_dim=24)
    with torch.device("meta"):
        state_dict = {name.removeprefix("encoder."): t for name, t in EsViTModel(config).state_dict().items()}
    assert infer_config(state_dict).image_size == 160
    assert infer_config(state_dict, image_size=170).image_size == 170
    with pytest.raises(ConversionError, match="do not come from images of 224 px"):
        infer_config(state_dict, image_size=224)


# Position embeddings

POSITIONS = "l1,h1,d12,p4,f3_l2,h2,d24,g0,f3_l3,h2,d48,s0_l4,h4,d96,s0,g0"  # each kind of attention, with g1 and g0
UNTOLD = {"num_heads": [1, 2, 2, 4], "window_size": 3}


def positioned_model(architecture: str = POSITIONS, **fields) -> EsViTForPreTraining:
    """A model for images of 64 px, in which no value is zero."""
    torch.manual_seed(0)
    heads = {"num_prototypes": 16, "head_hidden_size": 12, "head_bottleneck_size": 8}
    model = EsViTForPreTraining(EsViTConfig.from_architecture(architecture, image_size=64, **heads, **fields)).eval()
    with torch.no_grad():
        for parameter in model.esvit.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def as_original(model: EsViTForPreTraining) -> dict[str, torch.Tensor]:
    """The network as the original saves it: stages without global tokens have a tensor of no elements for positions."""
    network = {to_original_name(name): tensor for name, tensor in model.state_dict().items() if "center" not in name}
    for name in [name for name in network if name.endswith("x_pos_embed")]:
        prefix = name.removesuffix("x_pos_embed")
        empty = torch.empty(1, 0, 2 * network[name].shape[2])
        network[f"{prefix}cls_pos_embed"] = network.get(f"{prefix}cls_pos_embed", empty)
    return as_saved(network)


@torch.no_grad()
@pytest.mark.parametrize(
    "architecture, untold",
    [(POSITIONS, UNTOLD), ("l1,h1,d12,p4,f3,a0_l2,h2,d24,s0,g0_l3,h2,d48,s0,a0", {"num_heads": [1, 2, 2]})],
)
def test_position_embeddings(architecture, untold, tmp_path):
    model = positioned_model(architecture)
    network = as_original(model)
    assert any(not tensor.numel() for tensor in network.values())
    report = convert(save(network, tmp_path / "vil.pth"), tmp_path / "out", overrides=untold)
    assert "cls_pos_embed" in str(report).split("left out: ")[1]
    converted = EsViTForPreTraining.from_pretrained(tmp_path / "out").eval()
    for name in ("absolute_positions", "global_tokens", "sparse_stages", "window_size", "image_size", "num_heads"):
        assert getattr(converted.config, name) == getattr(model.config, name), name
    saved, kept = model.state_dict(), converted.state_dict()
    assert saved.keys() == kept.keys() and all(torch.equal(tensor, kept[name]) for name, tensor in saved.items())
    for size in (64, 96):
        images = torch.randn(2, 3, size, size)
        assert torch.equal(model.esvit(images).last_hidden_state, converted.esvit(images).last_hidden_state)


def test_what_position_embeddings_do_not_tell(tmp_path):
    path = save(as_original(positioned_model()), tmp_path / "vil.pth")
    both = (
        r"do not tell the attention heads and the side of a chunk of a ViL of width 12; give num_heads \(--set "
        r"num_heads=\[1,3,6,12\], .*\) and window_size \(--set window_size=7, say\)"
    )
    for overrides, message in (
        ({}, both),
        ({"window_size": 3}, "do not tell the attention heads of a ViL"),
        ({"num_heads": [1, 2, 2, 4]}, "do not tell the side of a chunk of a ViL"),
    ):
        with pytest.raises(ConversionError, match=message):
            convert(path, tmp_path / "out", overrides=overrides)


def test_position_embeddings_tell_the_construction_size():
    network = as_original(positioned_model())
    assert infer_config(network, **UNTOLD).image_size == 64
    assert infer_config(network, image_size=66, **UNTOLD).image_size == 66
    with pytest.raises(ConversionError, match="sides are 16 of 4 px, 8 of 8 px, .* do not come from images of 224 px"):
        infer_config(network, image_size=224, **UNTOLD)


@pytest.mark.parametrize(
    "name",
    [
        "layer1.0.cls_pos_embed",  # of a stage with a global token
        "layer4.0.x_pos_embed",
        "layer4.0.norm_embed.bias",
    ],
)
def test_other_tensors_without_values_are_refused(name, tmp_path):
    network = as_original(positioned_model())
    network[name] = torch.empty(1, 0, 12)
    with pytest.raises(ConversionError, match=rf"These tensors have no values: {name}\."):
        convert(save(network, tmp_path / "vil.pth"), tmp_path / "out", overrides=UNTOLD)


def test_empty_positions_of_a_stage_without_positions_are_refused(tmp_path):
    network = golden_network() | {"layer4.0.cls_pos_embed": torch.empty(1, 0, 96)}
    with pytest.raises(ConversionError, match="These tensors have no values: layer4.0.cls_pos_embed"):
        convert(save(network, tmp_path / "vil.pth"), tmp_path / "out")


def test_missing_position_biases_are_refused(tmp_path):
    network = {name: t for name, t in golden_network().items() if "relative_position" not in name}
    with pytest.raises(ConversionError, match="local_relative_position_bias_table is missing"):
        convert(save(network, tmp_path / "vil.pth"), tmp_path / "out")
