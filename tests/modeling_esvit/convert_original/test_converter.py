# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Conversion of original checkpoints. `checkpoint_swin_tiny.pth` was written by the training script of the MIT-licensed
original (microsoft/esvit); `original_swin_shapes.json` lists the tensors of its full-size networks.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForPreTraining

from modeling_esvit import EsViTConfig, EsViTForPreTraining, EsViTModel
from modeling_esvit.conversion.original_checkpoint import describe_weights, read_checkpoint
from modeling_esvit.convert_original.converter import (
    ConversionError,
    convert,
    main,
    to_original_name,
)
from modeling_esvit.storage.weights_record import read_weights_record
from tests.helpers.golden import FIXTURES, crop_groups, draw_weights, inputs, load, metadata, to_pretraining_keys


CHECKPOINT = FIXTURES / "checkpoint_swin_tiny.pth"
SMALL = {
    "embed_dim": 8,
    "depths": [1, 2, 1],
    "num_heads": [1, 2, 4],
    "num_prototypes": 6,
    "head_hidden_size": 10,
    "head_bottleneck_size": 5,
}


def original_weights(model: EsViTForPreTraining) -> dict[str, torch.Tensor]:
    """The tensors of a model under their original names, and the buffers that original files hold beside them."""
    names = {name: to_original_name(name) for name in model.state_dict() if not name.endswith("_center")}
    weights = {names[name]: tensor.clone() for name, tensor in model.state_dict().items() if name in names}
    index = torch.zeros(49, 49, dtype=torch.int64)
    return {**weights, "layers.0.blocks.0.attn.relative_position_index": index, "layers.0.blocks.1.attn_mask": index}


@pytest.fixture
def small() -> EsViTForPreTraining:
    torch.manual_seed(0)
    model = EsViTForPreTraining(EsViTConfig(**SMALL))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


@pytest.fixture
def weights(small) -> dict[str, torch.Tensor]:
    return original_weights(small)


def assert_refused(match: str, source: Path, **options) -> str:
    """The conversion fails with a typed error and leaves nothing behind."""
    before = sorted(source.parent.rglob("*"))
    with pytest.raises(ConversionError, match=match) as error:
        convert(source, source.parent / "new" / "out", **options)
    assert sorted(source.parent.rglob("*")) == before
    return str(error.value)


def saved(content, path: Path, **options) -> Path:
    torch.save(content, path, **options)
    return path


# What is known of the weights


def test_a_converted_folder_tells_where_its_weights_came_from(tmp_path):
    """Also in transformers' own format, and not where the file was."""
    for key in ("teacher", "student"):
        convert(CHECKPOINT, tmp_path / key, key)
        record = read_weights_record(tmp_path / key)
        assert record and record.source.startswith(
            f"the {key} in a checkpoint of the original EsViT ([microsoft/esvit]"
        )
        assert record.training == (
            "without labels, by the view and the region task, for 2 epochs; on which images is not recorded"
        )
        assert (record.by_esvit, record.is_teacher, record.license) == (True, key == "teacher", None)


def test_tensors_alone_do_not_tell_how_they_were_trained(weights, tmp_path):
    """Those of a view head are in checkpoints of DINO, too; those of a region head are EsViT's alone."""
    backbone = {name: tensor for name, tensor in weights.items() if not name.startswith("head")}
    view = {name: tensor for name, tensor in weights.items() if not name.startswith("head_dense")}
    for tensors, by_esvit in ((backbone, False), (view, False), (weights, True)):
        record = describe_weights(read_checkpoint(saved(tensors, tmp_path / "x.pth")))
        assert (record.by_esvit, record.is_teacher) == (by_esvit, False) and bool(record.training) == by_esvit


# The original's own files


@pytest.mark.parametrize("key", ["teacher", "student"])
def test_training_checkpoint(key, tmp_path):
    report = str(convert(CHECKPOINT, tmp_path / "out", key=key))
    allowed = [argparse.Namespace, np.dtype, type(np.dtype("float64"))]
    scalar = (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar")  # numpy 1 names it otherwise
    with torch.serialization.safe_globals([*allowed, scalar]):
        checkpoint = torch.load(CHECKPOINT, weights_only=True)
    network = {name.removeprefix("module."): tensor for name, tensor in checkpoint[key].items()}
    expected = to_pretraining_keys(network)
    expected["view_center"] = checkpoint["dino_loss"]["center"][0]
    expected["region_center"] = checkpoint["dino_loss"]["center_grid"][0]
    assert expected["view_center"].abs().min() > 0 and expected["region_center"].abs().min() > 0
    model = AutoModelForPreTraining.from_pretrained(tmp_path / "out")
    converted = model.state_dict()
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[name], expected[name]) for name in expected)
    assert model.config.norm_last_layer is False
    assert f"({key}, epoch 2)" in report and "centres kept" in report and "optimizer" in report


@pytest.mark.parametrize("name", ["swin_w7", "swin_w14"])
def test_outputs_equal_the_original(name, tmp_path):
    header, golden = metadata(f"golden_{name}"), load(f"golden_{name}")
    network = draw_weights(header["parameters"], header["seed"])
    convert(saved({"model": network}, tmp_path / "original.pth"), tmp_path / "out")
    model = AutoModel.from_pretrained(tmp_path / "out").eval()
    assert isinstance(model, EsViTModel)
    with torch.no_grad():
        for size in ("x224", "x96"):
            output = model(inputs()[size])
            torch.testing.assert_close(output.pooler_output, golden[f"{size}.pooled"], rtol=0, atol=2e-5)
            torch.testing.assert_close(output.last_hidden_state, golden[f"{size}.region"], rtol=0, atol=2e-5)
        output = AutoModelForPreTraining.from_pretrained(tmp_path / "out").eval()(crop_groups())
    if "mc.head" in golden:
        logits = output.view_embeddings @ output.view_prototypes.T
        torch.testing.assert_close(logits, golden["mc.head"], rtol=0, atol=2e-5)


# Layouts


def drop(prefix):
    return lambda network: {name: tensor for name, tensor in network.items() if not name.startswith(prefix)}


def modern_weight_norm(network):
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        network = {name.replace(old, f"parametrizations.weight.{new}"): tensor for name, tensor in network.items()}
    return network


LAYOUTS = {
    "bare": (lambda network: network, {}),
    "state_dict entry": (lambda network: {"state_dict": network, "epoch": 3}, {}),
    "wrappers": (lambda network: {f"module.backbone.{name}": tensor for name, tensor in network.items()}, {}),
    "modern weight norm": (modern_weight_norm, {}),
    "view head only": (drop("head_dense."), {"region_head": False}),
    "teacher without student": (lambda network: {"teacher": network}, {}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, small, weights, tmp_path):
    arrange, differences = LAYOUTS[layout]
    report = str(convert(saved(arrange(weights), tmp_path / "x.pth"), tmp_path / "out"))
    model = AutoModelForPreTraining.from_pretrained(tmp_path / "out")
    assert {**SMALL, "norm_last_layer": False, **differences}.items() <= model.config.to_dict().items()
    assert "zero, as the checkpoint lacks them: view_center" in report and "attn_mask" in report
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, small.state_dict()[name]), name


@pytest.mark.parametrize(
    "options",
    [
        {"head_batch_norm": True},
        {"head_num_layers": 1, "head_hidden_size": 2048},
        {"head_num_layers": 2, "num_prototypes": 1},
        {"qkv_bias": False, "patch_norm": False, "mlp_ratio": 2.7, "num_channels": 1},
        {"use_absolute_embeddings": True, "image_size": 112, "patch_size": 2},
        {"window_size": 14, "depths": [1, 1, 1, 1, 2], "num_heads": [1, 2, 2, 4, 8]},
    ],
    ids=str,
)
def test_options_are_inferred(options, tmp_path):
    model = EsViTForPreTraining(EsViTConfig(**{**SMALL, **options}))
    network = original_weights(model)
    if options.get("head_num_layers") == 1:  # the original then has no Sequential
        network = {re.sub(r"mlp\.0\.(weight|bias)", r"mlp.\1", name): tensor for name, tensor in network.items()}
    convert(saved(network, tmp_path / "x.pth"), tmp_path / "out")
    converted = EsViTForPreTraining.from_pretrained(tmp_path / "out")
    differing = {
        name for name, value in model.config.to_dict().items() if converted.config.to_dict().get(name) != value
    }
    assert differing <= {"mlp_ratio", "dtype", "architectures", "_name_or_path"}
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in converted.state_dict().items())


def test_no_heads_safetensors_and_half_precision(small, weights, tmp_path):
    backbone = {name: tensor.half() for name, tensor in drop("head")(weights).items() if tensor.is_floating_point()}
    save_file(backbone, tmp_path / "x.safetensors")
    report = convert(tmp_path / "x.safetensors", tmp_path / "out")
    assert report.model_class == "EsViTModel"
    converted = load_file(tmp_path / "out" / "model.safetensors")
    assert converted.keys() == small.esvit.state_dict().keys()
    for name, tensor in converted.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, small.esvit.state_dict()[name].half().float())


# Construction size


# Bad input


def test_every_wrong_tensor_is_named(weights, tmp_path):
    del weights["norm.weight"], weights["layers.1.blocks.1.mlp.fc2.bias"]
    weights["layers.0.blocks.0.norm1.gamma"] = torch.ones(3)
    weights["head.mlp.4.bias"] = torch.ones(7)
    message = assert_refused("4 tensors", saved(weights, tmp_path / "x.pth"))
    assert "missing: norm.weight [32]" in message and "missing: layers.1.blocks.1.mlp.fc2.bias [16]" in message
    assert "unexpected: layers.0.blocks.0.norm1.gamma [3]" in message
    assert "misshapen: head.mlp.4.bias [7], expected [5]" in message


def broken(name, tensor):
    return lambda weights: {**weights, name: tensor}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (drop("patch_embed.proj.weight"), r"patch_embed\.proj\.weight is missing"),
        (drop("layers.1.blocks"), r"layers\.1\.blocks.*is missing|misshapen"),
        (drop("head.mlp"), r"head\.mlp.*missing"),
        (drop("head.last_layer"), r"head\.last_layer.*missing"),
        (drop("head."), r"missing: head\.mlp\.0\.weight"),
        (broken("patch_embed.proj.weight", torch.ones(8)), "must have 4 dimensions"),
        (broken("layers.0.blocks.0.attn.relative_position_bias_table", torch.ones(168, 1)), "168 rows"),
        (broken("layers.1.blocks.0.attn.relative_position_bias_table", torch.ones(169, 3)), "num_heads.1.=3"),
        (broken("norm.bias", torch.full((32,), float("nan"))), r"NaN.*norm\.bias"),
        (lambda weights: {"teacher": weights, "dino_loss": {"center": torch.ones(1, 9)}}, r"dino_loss\.center \[9\]"),
    ],
)
def test_wrong_checkpoints(change, match, weights, tmp_path):
    assert_refused(match, saved(change(weights), tmp_path / "x.pth"))


def test_output_folder(tmp_path, capsys):
    output = tmp_path / "out"
    with pytest.raises(SystemExit, match=r"error: .*nowhere\.pth"):
        main([str(tmp_path / "nowhere.pth"), str(output)])
    assert not output.exists()
    output.mkdir()
    main([str(CHECKPOINT), str(output), "--key", "student"])
    assert "(student, epoch 2)" in capsys.readouterr().out
    files = {path: path.read_bytes() for path in output.iterdir()}
    with pytest.raises(SystemExit, match="error: .*out exists already"):
        main([str(CHECKPOINT), str(output)])
    assert {path: path.read_bytes() for path in output.iterdir()} == files
    assert list(tmp_path.iterdir()) == [output]
    with pytest.raises(ConversionError, match="is a folder"):
        convert(output, tmp_path / "again")


@pytest.mark.slow
def test_folder_loads_where_we_are_not_installed(tmp_path):
    convert(CHECKPOINT, tmp_path / "out")
    image = inputs()["x224"][:1]
    save_file({"image": image}, tmp_path / "image.safetensors")
    script = f"""
import sys
sys.modules["modeling_esvit"] = None  # any import of the installed package now fails
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel
model = AutoModel.from_pretrained({str(tmp_path / "out")!r}, trust_remote_code=True).eval()
with torch.no_grad():
    output = model(load_file({str(tmp_path / "image.safetensors")!r})["image"])
save_file({{"regions": output.last_hidden_state, "view": output.pooler_output}}, {str(tmp_path / "seen.safetensors")!r})
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment)
    seen = load_file(tmp_path / "seen.safetensors")
    with torch.no_grad():
        output = AutoModel.from_pretrained(tmp_path / "out").eval()(image)
    assert torch.equal(seen["regions"], output.last_hidden_state)
    assert torch.equal(seen["view"], output.pooler_output)
