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
from modeling_esvit.convert_original.converter import ConversionError, check_tensors, convert, infer_config, to_our_name
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


def test_position_embeddings_are_refused_by_name(tmp_path):
    """Also those of a stage without global tokens, where the original has a tensor of no elements."""
    network = golden_network() | {"layer4.0.cls_pos_embed": torch.empty(1, 0, 96)}
    with pytest.raises(
        ConversionError, match=r"position embeddings \(a1\), which are not supported: layer4\.0\.cls_pos_e"
    ):
        convert(save(network, tmp_path / "vil.pth"), tmp_path / "out")


def test_missing_position_biases_are_refused(tmp_path):
    network = {name: t for name, t in golden_network().items() if "relative_position" not in name}
    with pytest.raises(ConversionError, match="local_relative_position_bias_table is missing"):
        convert(save(network, tmp_path / "vil.pth"), tmp_path / "out")
