# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Conversion to transformers' own Swin: equal outputs where it can be, refusals where it cannot."""

import math
import re

import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, SwinModel

from modeling_esvit import EsViTConfig, EsViTForPreTraining, EsViTModel
from modeling_esvit.conversion import native_swin
from modeling_esvit.conversion.native_swin import find_native_obstacles, load_backbone, to_native
from modeling_esvit.convert_original.converter import ConversionError, convert, to_original_name
from modeling_esvit.storage.manifest import list_names
from tests.helpers.tiny_runs import lead_index_away


SMALL = {"embed_dim": 8, "depths": [2, 1, 3, 2], "num_heads": [1, 2, 2, 4], "num_prototypes": 6}


def random_model(**options) -> EsViTModel:
    """Weights with nothing zero, one or symmetric; patches vary so little that the epsilon of their norm counts."""
    torch.manual_seed(0)
    model = EsViTModel(EsViTConfig(**{**SMALL, **options})).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1, 0.3)
        else:
            torch.nn.init.normal_(parameter, 0, parameter[0].numel() ** -0.5)
    for parameter in model.encoder.patch_embed.proj.parameters():
        parameter.data.mul_(0.01)
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"qkv_bias": False, "mlp_ratio": 2.5},
        {"use_absolute_embeddings": True},
        {"depths": [1, 1], "num_heads": [2, 4], "window_size": 5, "image_size": 80},
        {"layer_norm_eps": 1e-4, "image_size": [224, 288]},
    ],
    ids=str,
)
def test_outputs_equal_ours(options):
    model = random_model(**options)
    native = to_native(model)
    size = model.config.image_size
    size = [size, size] if isinstance(size, int) else size
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        ours, theirs = (m(images, output_hidden_states=True) for m in (model, native))
    torch.testing.assert_close(theirs.last_hidden_state, ours.last_hidden_state, rtol=0, atol=1e-5)
    torch.testing.assert_close(theirs.pooler_output, ours.pooler_output, rtol=0, atol=1e-5)
    scale = math.sqrt(1e-5 / model.config.layer_norm_eps)
    for our_map, their_map in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        torch.testing.assert_close(their_map, our_map * scale, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"window_size": 14}, "stage 4 has window 7, but that format gives every stage window 14"),
        ({"image_size": 160}, "stage 4 has window 5"),
        ({"patch_norm": False}, "no LayerNorm"),
        ({"image_size": 232}, "232 is no multiple of 32"),
    ],
)
def test_refusals(options, reason):
    model = random_model(**options)
    assert reason in "; ".join(find_native_obstacles(model.config))
    with pytest.raises(ConversionError, match=reason):
        to_native(model)


def test_refused_of_other_architectures():
    resnet = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
    vit = EsViTConfig.from_architecture("deit-tiny", embed_dim=8, depths=[1], num_heads=[2])
    for config, name in ((EsViTConfig(architecture="auto", backbone_config=resnet), "Backbone"), (vit, "ViT")):
        with pytest.raises(ConversionError, match=f"its architecture is {name}.* of Swins alone"):
            to_native(EsViTModel(config))


def test_damaged_weights_are_named(tmp_path):
    random_model().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ConversionError, match=f"The weights of {tmp_path} are damaged: "):
        load_backbone(tmp_path)


def test_an_index_names_files_of_the_model(tmp_path):
    random_model().save_pretrained(tmp_path / "model")
    lead_index_away(tmp_path / "model")
    with pytest.raises(ConversionError, match="names ../private.safetensors, which is no file of the model"):
        load_backbone(tmp_path / "model")


@pytest.fixture
def checkpoint(tmp_path):
    model = EsViTForPreTraining(EsViTConfig(**SMALL))
    model.esvit.load_state_dict(random_model().state_dict())
    names = [name for name in model.state_dict() if not name.endswith("_center")]
    torch.save({to_original_name(name): model.state_dict()[name] for name in names}, tmp_path / "x.pth")
    return tmp_path / "x.pth"


def test_folder_is_transformers_own(checkpoint, tmp_path):
    report = str(convert(checkpoint, tmp_path / "native", native=True))
    assert list_names(tmp_path / "native") == [
        *("config.json", "model.safetensors", "preprocessor_config.json", "provenance.json")
    ]
    assert "224 px only" in report and "3.1623" in report
    native = AutoModel.from_pretrained(tmp_path / "native").eval()
    assert type(native) is SwinModel
    crop = AutoImageProcessor.from_pretrained(tmp_path / "native").crop_size
    assert (crop["height"], crop["width"]) == (224, 224)
    convert(checkpoint, tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "again", native=True)
    assert all(
        (tmp_path / "native" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        for name in ("config.json", "model.safetensors")
    )


def test_failure_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "resnet").mkdir()
    (tmp_path / "resnet" / "config.json").write_text('{"model_type": "resnet"}')
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConversionError, match="'resnet', not 'esvit'"):
        convert(tmp_path / "resnet", tmp_path / "out", native=True)
    monkeypatch.setattr(native_swin, "SCALED", re.compile("fc2"))  # a conversion that is wrong
    with pytest.raises(ConversionError, match="differs from ours by"):
        convert(checkpoint, tmp_path / "a" / "out", native=True)
    assert sorted(tmp_path.rglob("*")) == before
