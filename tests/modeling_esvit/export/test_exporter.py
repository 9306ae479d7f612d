# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Models written for onnxruntime, torch.export and timm give the model's outputs; what cannot be is refused."""

import json
import re

import onnxruntime
import pytest
import timm
import torch

from modeling_esvit import EsViTConfig, EsViTInputError, EsViTModel
from modeling_esvit.conversion import timm_swin
from modeling_esvit.convert_original.converter import ConversionError
from modeling_esvit.export import exporter as export_module
from modeling_esvit.export.exporter import export, main
from tests.helpers.tiny_models import CVT, RESNET_BASIC, VIL, VIT


SWIN = {"embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4, "image_size": 32}


def random_model(config: EsViTConfig) -> EsViTModel:
    """Weights with nothing zero, one or symmetric; patches vary so little that the epsilon of their norm counts."""
    torch.manual_seed(0)
    model = EsViTModel(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1, 0.3)
        else:
            torch.nn.init.normal_(parameter, 0, parameter[0].numel() ** -0.5)
    for name, statistic in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            torch.nn.init.uniform_(statistic, 0.5, 1.5)
    if config.architecture == "swin":
        for parameter in model.encoder.patch_embed.proj.parameters():
            parameter.data.mul_(0.01)
    return model


POSITIONS = {**VIL, "global_tokens": [1, 0], "absolute_positions": [1, 1]}
CONVNEXT = {"model_type": "convnextv2", "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}


SLOW = ("vil", "vil positions", "convnextv2")


def backbone_of_transformers(fields: dict) -> dict:
    return {"architecture": "auto", "backbone_config": fields, "image_size": 32}


FAMILIES = {
    "cvt": (CVT, (32, 48)),
    "swin": (SWIN, (36, 52)),
    "vil": (VIL, None),
    "vil positions": (POSITIONS, (40, 72)),
    "vit": (VIT, (24, 40)),
    "resnet": (backbone_of_transformers(RESNET_BASIC), (32, 64)),
    "convnextv2": (backbone_of_transformers(CONVNEXT), (64, 36)),
}


@pytest.fixture
def saved(tmp_path):
    def save(fields: dict | EsViTConfig) -> tuple[EsViTModel, str]:
        model = random_model(EsViTConfig(**fields) if isinstance(fields, dict) else fields)
        model.save_pretrained(tmp_path / "model")
        return model, str(tmp_path / "model")

    return save


def assert_equal(ours, view, regions):
    torch.testing.assert_close(torch.as_tensor(view), ours.pooler_output, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.as_tensor(regions), ours.last_hidden_state, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        pytest.param(SWIN, None, id="swin"),
        pytest.param(VIL, (40, 72), id="vil", marks=pytest.mark.slow),
        pytest.param(POSITIONS, None, id="vil positions", marks=pytest.mark.slow),
        pytest.param(VIT, (24, 40), id="vit", marks=pytest.mark.slow),
        pytest.param(CVT, (32, 48), id="cvt", marks=pytest.mark.slow),
        pytest.param(backbone_of_transformers(RESNET_BASIC), (32, 64), id="resnet", marks=pytest.mark.slow),
        pytest.param(backbone_of_transformers(CONVNEXT), (64, 36), id="convnextv2", marks=pytest.mark.slow),
    ],
)
def test_onnx_of_any_batch(saved, tmp_path, fields, size):
    model, folder = saved(fields)
    report = export(folder, tmp_path / "out", "onnx", size)
    assert report.difference < 1e-5 and str(tmp_path / "out") in str(report)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, *(size or (32, 32))]
    for batch in (1, 3, 5):
        images = torch.randn(batch, 3, *(size or (32, 32)))
        with torch.no_grad():
            assert_equal(model(images), *session.run(["view_feature", "regions"], {"pixel_values": images.numpy()}))
    crop = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())["crop_size"]
    assert (crop["height"], crop["width"]) == (size or (32, 32))


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FAMILIES]
)
def test_program_of_any_batch(saved, tmp_path, family):
    fields, size = FAMILIES[family]
    model, folder = saved(fields)
    assert export(folder, tmp_path / "out", "torch", size).difference < 1e-5
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    for batch in (1, 3, 5):
        images = torch.randn(batch, 3, *(size or (32, 32)))
        with torch.no_grad():
            assert_equal(model(images), *program(images))


def check_timm(model, theirs):
    size = model.config.image_size
    images = torch.randn(3, model.config.num_channels, *([size, size] if isinstance(size, int) else size))
    with torch.no_grad():
        assert_equal(model(images), theirs.eval()(images), theirs.forward_features(images).flatten(1, 2))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"window_size": 8, "depths": [2, 2]},  # the second stage has one window, without shift
        {"qkv_bias": False, "mlp_ratio": 2.5, "num_channels": 4},
        {"image_size": [64, 96]},
        {"layer_norm_eps": 1e-4},
    ],
    ids=str,
)
def test_timm(saved, tmp_path, changes):
    model, folder = saved({**SWIN, **changes})
    assert export(folder, tmp_path / "out", "timm").difference < 1e-5
    check_timm(model, timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True))


@pytest.mark.slow
def test_timm_by_name_and_checkpoint(saved, tmp_path):
    model, folder = saved(EsViTConfig.from_architecture("swin-tiny", window_size=14))
    report = str(export(folder, tmp_path / "out", "timm"))
    assert "timm.create_model('swin_tiny_patch4_window7_224', num_classes=0, img_size=[224, 224], window" in report
    theirs = timm.create_model(
        "swin_tiny_patch4_window7_224",
        num_classes=0,
        window_size=14,
        checkpoint_path=tmp_path / "out" / "model.safetensors",
    )
    check_timm(model, theirs)
    transform = timm.data.resolve_model_data_config(timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True))
    assert (transform["crop_pct"], transform["input_size"]) == (0.875, (3, 224, 224))


def test_what_timm_cannot_carry(saved, tmp_path):
    _, folder = saved(VIL)
    with pytest.raises(ConversionError, match="its architecture is ViL"):
        export(folder, tmp_path / "out", "timm")


def test_refusals_leave_nothing(saved, tmp_path, monkeypatch):
    _, folder = saved(SWIN)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConversionError, match="which is that of the construction, 32; leave out --image-size 64 64"):
        export(folder, tmp_path / "out", "timm", (64, 64))
    with pytest.raises(EsViTInputError, match="smaller than one patch"):
        export(folder, tmp_path / "out", "torch", (2, 64))
    with pytest.raises(ConversionError, match="exists already"):
        export(folder, folder, "torch")
    with pytest.raises(SystemExit, match="exists already"):
        main([folder, folder, "--to", "onnx", "--image-size", "32"])
    monkeypatch.setattr(timm_swin, "SCALED", re.compile("fc2"))  # an export that is wrong
    with pytest.raises(ConversionError, match="The timm model differs from ours by"):
        export(folder, tmp_path / "a" / "out", "timm")
    monkeypatch.setitem(export_module.PACKAGES, "timm", ("timm", "no_such_package"))
    with pytest.raises(ConversionError, match="--to timm needs no_such_package; install this package with its extra"):
        export(folder, tmp_path / "out", "timm")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_that_reads_values_is_refused(saved, tmp_path, monkeypatch):
    _, folder = saved(SWIN)
    forward = EsViTModel.forward

    def reads_values(self, pixel_values):
        return forward(self, pixel_values * (2 if pixel_values.sum() > 0 else 3))

    monkeypatch.setattr(EsViTModel, "forward", reads_values)
    with pytest.raises(ConversionError, match="torch.export cannot trace this EsViTModel"):
        export(folder, tmp_path / "out", "torch")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin-tiny", "vil-tiny", "cvt-tiny", "deit-small", "resnet-50"])
def test_published_architectures_in_onnx(saved, tmp_path, name):
    _, folder = saved(EsViTConfig.from_architecture(name))
    assert export(folder, tmp_path / "out", "onnx").difference < 1e-5
