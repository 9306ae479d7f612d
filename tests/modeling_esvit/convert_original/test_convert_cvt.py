# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Conversion of original CvT checkpoints, whose layout and weights are the original's (microsoft/esvit, MIT).
`original_cvt_shapes.json` lists the tensors of its full-size network.
"""

import json

import pytest
import torch
from transformers import AutoModel, AutoModelForPreTraining

from modeling_esvit import EsViTBackbone, EsViTConfig, EsViTForPreTraining
from modeling_esvit.convert_original.converter import (
    ConversionError,
    check_tensors,
    convert,
    infer_config,
    main,
    to_our_name,
)
from tests.helpers.cvt_models import golden_network
from tests.helpers.golden import FIXTURES, crop_groups, inputs, load


HEADS = {"num_heads": [1, 3, 6, 12]}


def checkpoint(task: str) -> dict:
    """As the original writes it: with BatchNorm, both networks are wrapped."""
    network = golden_network()
    if task == "view":
        network = {name: tensor for name, tensor in network.items() if not name.startswith("head_dense.")}
    centers = {"center": torch.full((1, 128), 0.5), "center_grid": torch.full((1, 128), -0.25)}
    wrapped = {f"module.{name}": tensor for name, tensor in network.items()}
    kept = centers if task == "view+region" else {"center": centers["center"]}
    return {"teacher": wrapped, "student": {**wrapped}, "dino_loss": kept, "epoch": 300}


@pytest.mark.parametrize("task", ["view", "view+region"])
@pytest.mark.parametrize("key", ["teacher", "student"])
def test_outputs_equal_the_original(task, key, tmp_path):
    golden = load("golden_cvt")
    torch.save(checkpoint(task), tmp_path / "cvt.pth")
    report = str(convert(tmp_path / "cvt.pth", tmp_path / "out", key=key, overrides=HEADS))
    assert "CvT, widths 8-24-48-96, depths 1-2-2-1, heads 1-3-6-12, window 7 at 224 px" in report
    model = AutoModel.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        for size in ("x224", "x96"):
            output = model(inputs()[size])
            torch.testing.assert_close(output.pooler_output, golden[f"{size}.pooled"], rtol=0, atol=1e-5)
            torch.testing.assert_close(output.last_hidden_state, golden[f"{size}.region"], rtol=0, atol=1e-5)
        output = AutoModelForPreTraining.from_pretrained(tmp_path / "out").eval()(crop_groups())
    logits = output.view_embeddings @ output.view_prototypes.T
    torch.testing.assert_close(logits, golden["mc.head"], rtol=0, atol=1e-5)
    assert (output.region_embeddings is None) == (task == "view")


def test_everything_is_kept(tmp_path):
    torch.save(checkpoint("view+region"), tmp_path / "cvt.pth")
    main([str(tmp_path / "cvt.pth"), str(tmp_path / "out"), "--set", "num_heads=[1,3,6,12]"])
    model = EsViTForPreTraining.from_pretrained(tmp_path / "out")
    assert model.view_center.tolist() == [0.5] * 128 and model.region_center.tolist() == [-0.25] * 128
    state = model.state_dict()
    assert len(state) == len(golden_network()) + 2
    for name, tensor in golden_network().items():
        assert torch.equal(state[to_our_name(name)], tensor), name
    assert EsViTBackbone.from_pretrained(tmp_path / "out").channels == [96]


def test_full_size():
    shapes = json.loads((FIXTURES / "original_cvt_shapes.json").read_text())["cvt_tiny"]
    network = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    config = infer_config(network)
    assert config.to_dict() == EsViTConfig.from_architecture("cvt-tiny").to_dict()
    with torch.device("meta"):
        expected = EsViTForPreTraining(config).state_dict()
    found = {to_our_name(name): tensor for name, tensor in network.items()}
    check_tensors(expected, {**found, **{name: expected[name] for name in ("view_center", "region_center")}})


def test_the_small_one_is_known_by_its_shapes():
    config = EsViTConfig.from_architecture("cvt-small")
    with torch.device("meta"):
        state = EsViTForPreTraining(config).esvit.encoder.state_dict()
    assert infer_config(state).num_heads == [2, 4, 8, 16]


def test_what_the_tensors_do_not_tell(tmp_path, capsys):
    path = tmp_path / "cvt.pth"
    torch.save(checkpoint("view"), path)
    with pytest.raises(
        ConversionError, match=r"do not tell the attention heads of a CvT.*--set num_heads=\[1,3,6,12\]"
    ):
        convert(path, tmp_path / "out")
    for value, message in (
        ("num_head=[1]", "no field 'num_head'; did you mean 'num_heads'"),
        ("num_heads=1,2", r"--set num_heads=1,2: '1,2' is no JSON; a list is written \[1,3,6,12\]"),
        ("num_heads=[1,3,7,12]", r"num_heads\[2\]=7 must divide the width 48"),
    ):
        with pytest.raises(SystemExit, match=message):
            main([str(path), str(tmp_path / "out"), "--set", value])
    assert not (tmp_path / "out").exists()
