# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Converts ViTs and ResNets of the original (microsoft/esvit, MIT), and torchvision's ResNets.

`original_vit_shapes.json` lists the tensors of the original's full-size DeiT-S.
"""

import argparse
import json
from pathlib import Path

import pytest
import torch
import torchvision
from transformers import AutoModel, AutoModelForPreTraining

from modeling_esvit import EsViTConfig, EsViTForPreTraining, EsViTModel
from modeling_esvit.convert_original.converter import (
    ConversionError,
    check_tensors,
    convert,
    infer_config,
    main,
    to_original_name,
    to_our_name,
)
from tests.helpers.golden import FIXTURES, draw_weights, inputs, load, metadata


HEADS = {"num_prototypes": 6, "head_hidden_size": 10, "head_bottleneck_size": 5}
VIT = {"architecture": "vit", "embed_dim": 128, "depths": [2], "num_heads": [2], "patch_size": 16}
RESNET = {
    "architecture": "auto",
    "backbone_config": {
        "model_type": "resnet",
        **{"embedding_size": 4, "hidden_sizes": [8, 16, 24, 32], "depths": [2, 1, 2, 1], "hidden_act": "relu"},
    },
}


def filled(fields: dict, **others) -> EsViTForPreTraining:
    """A model none of whose tensors is as it was made."""
    torch.manual_seed(0)
    model = EsViTForPreTraining(EsViTConfig(**fields, **HEADS, **others)).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            torch.nn.init.uniform_(tensor, 0.05, 0.15)
        else:
            tensor.fill_(17)
    return model


def as_original(model: EsViTForPreTraining, backbone: str) -> dict[str, torch.Tensor]:
    """Its network under the names of a training checkpoint, whose backbone is inside of `backbone`."""
    network = {}
    for name, tensor in model.state_dict().items():
        if not name.endswith("_center"):
            inner = "" if name.startswith(("view_head.", "region_head.")) else backbone
            network[f"module.{inner}{to_original_name(name)}"] = tensor.clone()
    return network


@pytest.mark.parametrize("region_head", [True, False])
@pytest.mark.parametrize(("fields", "backbone"), [(VIT, ""), (RESNET, "backbone.backbone.")])
def test_training_checkpoints_of_both_tasks(fields, backbone, region_head, tmp_path):
    """Weights, heads, centres and the statistics of batch norms come back as they were, under either class."""
    model = filled(fields, region_head=region_head)
    centers = {"center": model.view_center[None]}
    if region_head:
        centers["center_grid"] = model.region_center[None]
    network = as_original(model, backbone)
    if fields is RESNET:
        assert "module.backbone.backbone.layer1.0.downsample.1.running_var" in network
    content = {"teacher": network, "student": {}, "epoch": 3, "dino_loss": centers, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "checkpoint.pth")
    report = str(convert(tmp_path / "checkpoint.pth", tmp_path / "out"))
    assert "centres kept" in report and "epoch 3" in report
    converted = AutoModelForPreTraining.from_pretrained(tmp_path / "out").eval()
    assert converted.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(converted.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    image = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        output = AutoModel.from_pretrained(tmp_path / "out").eval()(image)
        torch.testing.assert_close(output.last_hidden_state, model.esvit(image).last_hidden_state)


@torch.no_grad()
def test_a_vit_of_the_original():
    """The golden weights under their original names; their heads of 8 channels no tensor tells."""
    header, golden = metadata("golden_vit_p16"), load("golden_vit_p16")
    network = draw_weights(header["parameters"], header["seed"])
    with pytest.raises(ConversionError, match="heads of a ViT of width 24; give num_heads"):
        infer_config(network)
    config = infer_config(network, num_heads=[3])
    assert (config.image_size, config.patch_size, config.depths, config.num_prototypes) == (224, 16, [4], 128)
    model = EsViTForPreTraining(config).eval()
    model.load_state_dict({to_our_name(name): tensor for name, tensor in network.items()}, strict=False)
    features = model.esvit(inputs()["x96"])
    torch.testing.assert_close(features.pooler_output, golden["x96.pooled"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("num_heads=3", r"'num_heads' with value 3 doesn't match any type in \(list\[int\], tuple\[int, ...\]\)\."),
        ("num_heads=[5]", r"num_heads\[0\]=5 must divide the width 24 of stage 0\."),
        ("num_heads=[3,3]", r"depths \[4\] and num_heads \[3, 3\] must have one entry per stage\."),
        ("window_size=14", "window_size is for a Swin or CvT or ViL; not for a ViT."),
    ],
)
def test_impossible_fields_end_in_one_line(given, message, tmp_path):
    header = metadata("golden_vit_p16")
    torch.save(draw_weights(header["parameters"], header["seed"]), tmp_path / "vit.pth")
    others = [] if given.startswith("num_heads") else ["--set", "num_heads=[3]"]
    with pytest.raises(SystemExit, match=rf"\Aerror: [^\n]*{message}\Z"):
        main([str(tmp_path / "vit.pth"), str(tmp_path / "out"), "--set", given, *others])
    assert not (tmp_path / "out").exists()


def test_published_shapes():
    shapes = json.loads((FIXTURES / "original_vit_shapes.json").read_text())["deit_small"]
    network = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    config = infer_config(network)
    assert config.to_dict() == EsViTConfig.from_architecture("deit-small").to_dict()
    with torch.device("meta"):
        expected = EsViTForPreTraining(config).state_dict()
    found = {to_our_name(name): tensor for name, tensor in network.items()}
    found |= {name: expected[name] for name in ("view_center", "region_center")}
    check_tensors(expected, found)
    finer = {**network, "pos_embed": torch.empty(1, 785, 384), "patch_embed.proj.weight": torch.empty(384, 3, 8, 8)}
    assert infer_config(finer).to_dict() == EsViTConfig.from_architecture("deit-small", patch_size=8).to_dict()
    assert infer_config({**network, "pos_embed": torch.empty(1, 401, 384)}).image_size == 320
    for tokens, size, message in ((200, None, "200 positions; a square image"), (197, 96, "as 224 px give; .* is 96")):
        with pytest.raises(ConversionError, match=message):
            infer_config({**network, "pos_embed": torch.empty(1, tokens, 384)}, size)


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
@torch.no_grad()
def test_torchvision(name, tmp_path):
    original = getattr(torchvision.models, name)().eval()
    for buffer_name, buffer in original.named_buffers():
        if buffer_name.endswith("running_mean"):
            torch.nn.init.normal_(buffer, std=0.2)
        elif buffer_name.endswith("running_var"):
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    torch.save(original.state_dict(), tmp_path / f"{name}.pth")
    report = str(convert(tmp_path / f"{name}.pth", tmp_path / "out"))
    assert "left out: weight, bias" in report and ("resnet-50" in report) == (name == "resnet50")
    model = AutoModel.from_pretrained(tmp_path / "out").eval()
    assert isinstance(model, EsViTModel)
    image = torch.randn(1, 3, 97, 131)
    expected = torch.nn.Sequential(*list(original.children())[:-2])(image).mean(dim=(2, 3))
    pooled = model(image).pooler_output
    torch.testing.assert_close(pooled / expected.norm(), expected / expected.norm(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "replacement", "message"),
    [
        ("layer2.0.conv3.weight", None, "The tensor layer2.0.conv3.weight is missing"),
        ("layer1.1.bn2.bias", None, r"missing: layer1\.1\.bn2\.bias \[2\]"),
        ("layer3.0.conv2.weight", torch.zeros(6, 3, 3, 3), r"misshapen: layer3\.0\.conv2\.weight \[6, 3, 3, 3\]"),
        ("bn1.weight", torch.full((4,), torch.nan), r"NaN .*: bn1\.weight"),
    ],
)
def test_resnets_that_do_not_fit(name, replacement, message, tmp_path: Path):
    """A ResNeXt's grouped convolutions, say, are named as torchvision names them."""
    network = as_original(filled(RESNET), "")
    network = {key.removeprefix("module."): tensor for key, tensor in network.items()}
    if replacement is None:
        del network[name]
    else:
        network[name] = replacement
    torch.save(network, tmp_path / "checkpoint.pth")
    with pytest.raises(ConversionError, match=f"(?s){message}"):
        convert(tmp_path / "checkpoint.pth", tmp_path / "out")
