# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Models written for onnxruntime, OpenVINO, torch.export and timm give the model's outputs; the rest is refused."""

import configparser
import json
import math
import re

import onnxruntime
import pytest
import timm
import torch

from modeling_esvit import EsViTConfig, EsViTInputError, EsViTModel
from modeling_esvit.conversion import timm_swin
from modeling_esvit.convert_original.converter import ConversionError
from modeling_esvit.export import exporter as export_module
from modeling_esvit.export.exporter import EXPORTERS, REQUIREMENTS, export, is_installed, main
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import CVT, RESNET_BASIC, VIL, VIT


has_exporters = pytest.mark.skipif(not is_installed(EXPORTERS), reason=f"needs {EXPORTERS}")
has_openvino = pytest.mark.skipif(not is_installed(REQUIREMENTS["openvino"][0]), reason="needs openvino")
# Programs of earlier releases take only sizes that pooling rounds as it did the traced one; such programs are not kept.
has_open_pooling = pytest.mark.skipif(not is_installed("torch>=2.13"), reason="needs torch>=2.13")
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


every_family = pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name == "swin" else pytest.mark.slow) for name in FAMILIES]
)


@pytest.mark.slow
@has_exporters
@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_of_any_batch(saved, tmp_path, family, capfd):
    fields, size = FAMILIES[family]
    model, folder = saved(fields)
    capfd.readouterr()
    report = export(folder, tmp_path / "out", "onnx", size)
    assert report.difference < 1e-5 and str(tmp_path / "out") in str(report)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, *(size or (32, 32))]
    for batch in (1, 3, 5):
        images = torch.randn(batch, 3, *(size or (32, 32)))
        with torch.no_grad():
            assert_equal(model(images), *session.run(["view_feature", "regions"], {"pixel_values": images.numpy()}))
    exported = json.loads((tmp_path / "out" / "export.json").read_text())
    assert exported["components"]["model"]["metadata"]["architecture"] == "EsViTModel"
    assert report.files == ["export.json", "model.onnx", "model.onnx.data", "preprocessor_config.json"]
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""  # of torch's and transformers' exporters
    crop = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())["crop_size"]
    assert (crop["height"], crop["width"]) == (size or (32, 32))


def load_openvino(folder):
    import openvino

    path = folder / "openvino_model.xml"
    return openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@has_exporters
@has_openvino
@every_family
@pytest.mark.slow
def test_openvino_of_any_batch(saved, tmp_path, family):
    fields, size = FAMILIES[family]
    model, folder = saved(fields)
    report = export(folder, tmp_path / "out", "openvino", size)
    assert report.difference < 1e-5 and "bf16 on CPUs that have it" in str(report)
    program = load_openvino(tmp_path / "out")
    height, width = size or (32, 32)
    assert str(program.input("pixel_values").partial_shape) == f"[?,3,{height},{width}]"
    for batch in (1, 3):
        images = torch.randn(batch, 3, height, width)
        outputs = program(images.numpy())
        with torch.no_grad():
            assert_equal(model(images), outputs["view_feature"], outputs["regions"])
    with pytest.raises(RuntimeError, match="incompatible"):
        program(torch.randn(1, 3, height + 4, width).numpy())


@pytest.mark.slow
@has_exporters
def test_transformers_runs_an_export(saved, tmp_path):
    from transformers.exporters import ExportedModel

    model, folder = saved(backbone_of_transformers(RESNET_BASIC))
    main([folder, str(tmp_path / "out"), "--to", "onnx", "--dynamic_size"])
    images = torch.randn(3, 3, 45, 71)
    outputs = ExportedModel.from_pretrained(tmp_path / "out", device="cpu")(pixel_values=images)
    with torch.no_grad():
        assert_equal(model(images), outputs["view_feature"], outputs["regions"])


@pytest.mark.parametrize(
    ("to", "family"),
    [
        pytest.param("torch", "resnet", marks=has_open_pooling),
        pytest.param("onnx", "vit", marks=[has_exporters, pytest.mark.slow]),
        pytest.param("onnx", "convnextv2", marks=[has_exporters, pytest.mark.slow]),
        pytest.param("openvino", "resnet", marks=[has_exporters, has_openvino, pytest.mark.slow]),
        pytest.param("openvino", "vit", marks=[has_exporters, has_openvino, pytest.mark.slow]),
    ],
)
def test_images_of_any_size(saved, tmp_path, to, family):
    model, folder = saved(FAMILIES[family][0])
    report = export(folder, tmp_path / "out", to, dynamic_size=True)
    assert report.difference < 1e-5 and "32 x 32, 64 x 32, 32 x 64, 33 x 33 px" in str(report)
    program = {"torch": load_program, "onnx": load_onnx, "openvino": load_openvino}[to](tmp_path / "out")
    for size in ((32, 32), (33, 47), (96, 64)):
        images = torch.randn(2, 3, *size)
        outputs = program(images if to == "torch" else images.numpy())
        with torch.no_grad():
            assert_equal(model(images), outputs[0], outputs[1])


def load_program(folder):
    return torch.export.load(folder / "model.pt2").module()


def load_onnx(folder):
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return lambda images: session.run(["view_feature", "regions"], {"pixel_values": images})


@pytest.mark.parametrize(
    ("fields", "to", "reason"),
    [
        (SWIN, "onnx", "--to onnx cannot leave the size of images open for this Swin: its windows are cut by index"),
        (CVT, "openvino", "for this CvT: its windows"),
        (VIL, "torch", "for this ViL: its windows"),
        (VIT, "torch", "does not resize its position embeddings to every size; --to onnx does. Leave out"),
        (SWIN, "timm", "timm's Swin takes images of one size"),
        (backbone_of_transformers(CONVNEXT), "torch", r"stops on images of 32 x 32 pixels and was not kept: Guard"),
    ],
)
def test_what_needs_one_size(saved, tmp_path, monkeypatch, fields, to, reason):
    monkeypatch.setattr(export_module, "REQUIREMENTS", dict.fromkeys(REQUIREMENTS, ()))
    _, folder = saved(fields)
    with pytest.raises(ConversionError, match=reason):
        export(folder, tmp_path / "out", to, dynamic_size=True)
    assert not (tmp_path / "out").exists()


def test_a_program_that_stops_on_odd_sizes_is_not_kept(saved, tmp_path, monkeypatch):
    def write(model, folder, sizes):
        def run(images):
            assert images.shape[2] % 2 == 0
            return export_module.Features(model)(images)

        return run

    monkeypatch.setitem(export_module.WRITERS, "torch", write)
    _, folder = saved(FAMILIES["resnet"][0])
    with pytest.raises(ConversionError, match="stops on images of 33 x 33 pixels and was not kept"):
        export(folder, tmp_path / "out", "torch", dynamic_size=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("broken", [(0, 1), (1, 1), (0, 4)])
def test_a_program_that_gives_nan_is_not_kept(saved, tmp_path, monkeypatch, broken):
    """Whether in the view feature or in the regions, of any batch."""
    place, batch = broken

    def write(model, folder, sizes):
        def run(images):
            outputs = list(export_module.Features(model)(images))
            if len(images) == batch:
                outputs[place] = outputs[place] * math.nan
            return tuple(outputs)

        return run

    monkeypatch.setitem(export_module.WRITERS, "torch", write)
    _, folder = saved(FAMILIES["resnet"][0])
    with pytest.raises(ConversionError, match="The torch model differs from ours by nan of the largest output"):
        export(folder, tmp_path / "out", "torch")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FAMILIES]
)
def test_program_of_any_batch(saved, tmp_path, family):
    fields, size = FAMILIES[family]
    model, folder = saved(fields)
    assert export(folder, tmp_path / "out", "torch", size).difference < 1e-5
    program = load_program(tmp_path / "out")
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
    with pytest.raises(ConversionError, match="which is that of the construction, 32; leave out --image_size 64 64"):
        export(folder, tmp_path / "out", "timm", (64, 64))
    with pytest.raises(EsViTInputError, match="smaller than one patch"):
        export(folder, tmp_path / "out", "torch", (2, 64))
    with pytest.raises(ConversionError, match="exists already"):
        export(folder, folder, "torch")
    with pytest.raises(SystemExit, match="exists already"):
        main([folder, folder, "--to", "torch", "--image_size", "32"])
    monkeypatch.setattr(timm_swin, "SCALED", re.compile("fc2"))  # an export that is wrong
    with pytest.raises(ConversionError, match="The timm model differs from ours by"):
        export(folder, tmp_path / "a" / "out", "timm")
    with pytest.raises(ConversionError, match="There is no format 'tflite'; choose one of onnx, openvino, timm, torch"):
        export(folder, tmp_path / "out", "tflite")
    with pytest.raises(SystemExit, match="Not a directory"):
        main([folder, f"{folder}/config.json/out", "--to", "torch"])
    assert sorted(tmp_path.rglob("*")) == before


def test_another_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(ConversionError, match="holds a model of type 'resnet', not 'esvit'"):
        export(tmp_path, tmp_path / "out", "torch")


def test_missing_and_old_packages_are_named_with_the_command(monkeypatch):
    monkeypatch.setitem(REQUIREMENTS, "onnx", ("onnx>=1.18", "no_such_package>=1", "transformers>=99"))
    command = re.escape("Install with: pip install 'no_such_package>=1' 'transformers>=99'")
    with pytest.raises(ConversionError, match=f"--to onnx needs no_such_package>=1, transformers>=99. {command}"):
        export("nowhere", "out", "onnx")


def test_the_extra_has_the_packages_of_all_formats():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    needed = {name for names in REQUIREMENTS.values() for name in names} - {EXPORTERS}
    assert set(setup["options.extras_require"]["export"].split()) == needed
    assert needed <= set(setup["options.extras_require"]["dev"].split())


def test_a_model_that_reads_values_is_refused(saved, tmp_path, monkeypatch):
    _, folder = saved(SWIN)
    forward = EsViTModel.forward

    def reads_values(self, pixel_values):
        return forward(self, pixel_values * (2 if pixel_values.sum() > 0 else 3))

    monkeypatch.setattr(EsViTModel, "forward", reads_values)
    with pytest.raises(ConversionError, match="torch.export cannot trace this EsViTModel"):
        export(folder, tmp_path / "out", "torch")


def test_images_beyond_the_memory_are_refused(saved, tmp_path):
    _, folder = saved(SWIN)
    side = "4000000"  # 384 TB, more than a process can name
    with pytest.raises(SystemExit, match="error: torch.export cannot trace this EsViTModel: .*can't allocate memory"):
        main([str(folder), str(tmp_path / "out"), "--to", "torch", "--image_size", side])
    assert not (tmp_path / "out").exists()


@has_exporters
@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin-tiny", "vil-tiny", "cvt-tiny", "deit-small", "resnet-50"])
def test_published_architectures_in_onnx(saved, tmp_path, name):
    _, folder = saved(EsViTConfig.from_architecture(name))
    assert export(folder, tmp_path / "out", "onnx").difference < 1e-5
