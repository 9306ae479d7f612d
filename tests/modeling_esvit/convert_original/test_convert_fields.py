# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the converter refuses fields and image sizes that the network of a checkpoint cannot have."""

import re
from pathlib import Path

import pytest
import torch

from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.convert_original.converter import ConversionError, convert, infer_config, main, to_original_name


FIELDS = {
    "swin": {"architecture": "swin", "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "image_size": 32},
    "vit": {"architecture": "vit", "embed_dim": 64, "depths": [1], "num_heads": [1], "image_size": 32},
    "cvt": {
        **{"architecture": "cvt", "embed_dim": 8, "stage_dims": [8], "depths": [1], "num_heads": [1]},
        **{"patch_kernels": [7], "patch_strides": [4], "patch_paddings": [2]},
    },
    "resnet": {
        "architecture": "auto",
        "backbone_config": {
            **{"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [8, 16], "depths": [1, 1]},
            **{"downsample_in_first_stage": False, "hidden_act": "relu"},
        },
    },
}
TOLD = {"cvt": ["--set", "num_heads=[1]"]}


def network(family: str) -> dict[str, torch.Tensor]:
    if family == "vil":
        config = EsViTConfig.from_architecture("l1,h1,d12,p4,f3_l2,h2,d24,s0,g0", image_size=32)
    else:
        config = EsViTConfig(**FIELDS[family])
    state = EsViTModel(config).state_dict()
    return {to_original_name(f"esvit.{name}"): tensor for name, tensor in state.items()}


@pytest.fixture
def refuse(tmp_path, capsys):
    """Runs the command on a network of a family, and checks that it ends in one line with this message."""

    def run(family: str, arguments: list[str], message: str) -> None:
        torch.save(network(family), tmp_path / "checkpoint.pth")
        with pytest.raises(SystemExit, match=rf"\Aerror: [^\n]*{message}[^\n]*\Z"):
            main([str(tmp_path / "checkpoint.pth"), str(tmp_path / "out"), *arguments, *TOLD.get(family, [])])
        assert not (tmp_path / "out").exists()

    return run


@pytest.mark.parametrize(
    "given",
    [
        *("depths=[1]", "num_heads=[5,5,5,5]", "num_heads=null", "num_heads=[1]", "embed_dim=5", "mlp_ratio=4"),
        *("window_size=7", "num_attention_heads=[3,3]", "patch_size=1", "num_channels=3", 'hidden_act="gelu"'),
        *("qkv_bias=true", "stage_dims=null", "drop_path_rate=0.1", "vil_mode=0", "patch_norm=true"),
    ],
)
def test_a_resnet_has_no_fields_of_other_families(given, refuse):
    name = given.split("=")[0].replace("attention_", "")
    refuse("resnet", ["--set", given], f"{name} is for a .*; not for a Backbone of transformers")


@pytest.mark.parametrize(
    ("family", "given", "message"),
    [
        ("vit", "window_size=7", "window_size is for a Swin or CvT or ViL; not for a ViT"),
        ("swin", "stage_dims=null", "stage_dims is for a CvT or ViL; not for a Swin"),
        ("cvt", "patch_size=4", "patch_size is for .*; not for a CvT"),
        ("vit", "backbone_config=null", "backbone_config is for a Backbone .*; not for a ViT"),
        ("swin", "num_heads=null", "num_heads.* None"),
        *((family, "num_hidden_layers=9", "num_hidden_layers .* leave it out") for family in (*FIELDS, "vil")),
        *((family, 'architecture="foo"', "architecture cannot be 'foo'; leave it") for family in (*FIELDS, "vil")),
        ("cvt", "architecture=null", "are of a CvT, so architecture cannot be None"),
        ("vil", 'architecture="cvt"', "are of a ViL, so architecture cannot be 'cvt'"),
        *((family, "image_size=96", "use --image_size") for family in (*FIELDS, "vil")),
        ("swin", "_out_features=[]", "no field '_out_features'"),
        ("swin", "mlp_ratio=" + "9" * 5000, "is no JSON"),
        ("swin", 'hidden_act="foo"', "hidden_act 'foo' is no activation"),
        ("swin", 'out_features=["foo"]', r"out_features \['foo'\] .* of stem, stage1, stage2"),
    ],
)
def test_fields_that_cannot_be_set(family, given, message, refuse):
    refuse(family, ["--set", given], message)


@pytest.mark.parametrize("size", [-1, 0, 100_000])
@pytest.mark.parametrize("family", [*FIELDS, "vil"])
def test_image_sizes_that_cannot_be(family, size, refuse):
    refuse(family, ["--image_size", str(size)], f"image_size must be at least 1 .*, got {size}")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("layer_norm_eps=0", r"layer_norm_eps must be above 0 and at most 1, got 0\.0"),
        ("layer_norm_eps=NaN", "layer_norm_eps must be .*, got nan"),
        ("layer_norm_eps=true", "expected float, got bool"),
        ("initializer_range=-1", r"initializer_range must be .*, got -1\.0"),
        ("drop_path_rate=1", r"drop_path_rate must be .*, got 1\.0"),
        ("mlp_ratio=1" + "0" * 400, "mlp_ratio inf times the width 8"),
    ],
)
def test_values_of_floats_are_judged(given, message, refuse):
    refuse("swin", ["--set", given], message)


def test_whole_numbers_are_taken_for_floats():
    config = infer_config(network("swin"), layer_norm_eps=1, drop_path_rate=0, mlp_ratio=4)
    assert (config.layer_norm_eps, config.drop_path_rate, config.mlp_ratio) == (1.0, 0.0, 4.0)
    assert isinstance(config.layer_norm_eps, float)


def test_fields_in_python(tmp_path: Path):
    torch.save(network("cvt"), tmp_path / "cvt.pth")
    for overrides, message in (
        ({"image_size": 96}, "use --image_size (in Python, image_size=)"),
        ({"num_head": [1]}, "no field 'num_head'; did you mean 'num_heads'"),
        ({"num_heads": [1], "num_attention_heads": [2]}, "num_attention_heads is another name of num_heads"),
        ({"num_heads": None}, "'num_heads' with value None"),
    ):
        with pytest.raises(ConversionError, match=re.escape(message)):
            convert(tmp_path / "cvt.pth", tmp_path / "out", overrides=overrides)
    assert infer_config(network("cvt"), num_attention_heads=[2], architecture="cvt").num_heads == [2]


def test_a_model_folder_tells_its_fields(tmp_path: Path):
    EsViTModel(EsViTConfig(**FIELDS["swin"])).save_pretrained(tmp_path / "model")
    for given in ({"image_size": 64}, {"overrides": {"drop_path_rate": 0.2}}):
        with pytest.raises(ConversionError, match="model folder, whose config.json tells every field; set none"):
            convert(tmp_path / "model", tmp_path / "out", native=True, **given)
