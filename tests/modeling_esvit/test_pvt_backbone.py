# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""PVT, judged by transformers' own, which takes images of the size it was built for."""

import pytest
import torch
from torch.nn import functional as F
from transformers import PvtConfig, PvtForImageClassification, PvtModel

from modeling_esvit import EsViTBackbone, EsViTConfig, EsViTInputError, EsViTModel
from modeling_esvit.configuration_esvit import find_published_name
from modeling_esvit.pvt_backbone import EsViTPvtBackbone, EsViTPvtConfig
from tests.helpers.tiny_models import PVT, auto_config


FIELDS = {name: value for name, value in PVT.items() if name != "model_type"}


@pytest.fixture(scope="module")
def model() -> EsViTModel:
    """With class token and positions that matter."""
    torch.manual_seed(3)
    model = EsViTModel(auto_config(PVT)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("position_embeddings", "cls_token")):
                parameter.normal_()
    return model


def theirs(model: EsViTModel, side: int) -> PvtModel:
    """transformers' model, built for images of `side` pixels, with these weights and positions of that size."""
    state = model.encoder.backbone.state_dict()
    for stage in range(4):
        name = f"encoder.patch_embeddings.{stage}.position_embeddings"
        tokens = int(stage == 3)
        token, table = state[name][:, :tokens], state[name][:, tokens:]
        built, wanted = (pixels // (4 << stage) for pixels in (64, side))
        table = table.transpose(1, 2).reshape(1, -1, built, built)
        table = F.interpolate(table, size=(wanted, wanted), mode="bilinear", align_corners=False)
        state[name] = torch.cat([token, table.reshape(1, table.shape[1], -1).transpose(1, 2)], dim=1)
    reference = PvtModel(PvtConfig(**{**FIELDS, "image_size": side})).eval()
    reference.load_state_dict(state)
    return reference


@pytest.mark.parametrize("side", [64, 32, 96, 128])
def test_regions_are_those_of_transformers(model, side):
    """At other sizes than that of the construction: of its model that is built for them."""
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        output = model(images, output_attentions=True)
        expected = theirs(model, side)(images, output_attentions=True)
    torch.testing.assert_close(output.last_hidden_state, expected.last_hidden_state[:, 1:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.pooler_output, expected.last_hidden_state[:, 1:].mean(1), rtol=1e-5, atol=1e-5)
    for found, wanted in zip(output.attentions, expected.attentions, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_other_shapes_and_several_sizes(model):
    """Sides that are no multiples, and crops of several sizes in one call."""
    images = [torch.randn(2, 3, 64, 100), torch.randn(3, 3, 41, 33)]
    with torch.no_grad():
        together = model(images)
        alone = [model(each) for each in images]
    assert [each.last_hidden_state.shape[1] for each in alone] == [2 * 3, 1]
    assert [model.config.region_grid(64, 100), model.config.region_grid(41, 33)] == [(2, 3), (1, 1)]
    torch.testing.assert_close(together.pooler_output, torch.cat([each.pooler_output for each in alone]))
    with pytest.raises(EsViTInputError, match="cannot take images of 31 x 64 pixels"):
        model(torch.randn(1, 3, 31, 64))


def test_maps_of_stages(model):
    """Each is what the next stage sees; the last is normed."""
    config = auto_config(PVT, out_features=["stage1", "stage3", "stage4"])
    backbone = EsViTBackbone(config).eval()
    backbone.esvit.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = backbone(images).feature_maps
        states = theirs(model, 64)(images[..., :64], output_hidden_states=True).hidden_states
        square = backbone(images[..., :64]).feature_maps
    assert [tuple(each.shape[1:]) for each in maps] == [(8, 16, 24), (24, 4, 6), (32, 2, 3)]
    torch.testing.assert_close(square[0].flatten(2).mT, states[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(square[2].flatten(2).mT, states[-1][:, 1:], rtol=1e-5, atol=1e-5)


def test_weights_of_transformers_with_their_classifier(tmp_path):
    """As `--backbone FOLDER --backbone_weights` loads them."""
    classifier = PvtForImageClassification(PvtConfig(**FIELDS))
    classifier.save_pretrained(tmp_path)
    config = EsViTConfig(architecture="auto", backbone_config=str(tmp_path)).backbone_config
    assert type(config) is EsViTPvtConfig and config.depths == PVT["depths"]
    loaded, info = EsViTPvtBackbone.from_pretrained(tmp_path, config=config, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    for name, tensor in classifier.pvt.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_its_name_after_saving(tmp_path):
    """As a model card has it: with lists for the tuples of transformers' defaults."""
    config = EsViTConfig.from_architecture("pvt-small")
    config.save_pretrained(tmp_path)
    loaded = EsViTConfig.from_pretrained(tmp_path)
    assert find_published_name(loaded) == "pvt-small" and loaded.backbone_config == config.backbone_config


@pytest.mark.parametrize(
    ("name", "parameters"), [("pvt-tiny", 13.2), ("pvt-small", 24.5), ("pvt-medium", 44.2), ("pvt-large", 61.4)]
)
def test_parameters_of_the_paper(name, parameters):
    """Table 1 of PVT (arXiv 2102.12122), in millions, which counts a classifier of 1000 classes."""
    with torch.device("meta"):
        model = EsViTModel(EsViTConfig.from_architecture(name))
    assert find_published_name(model.config) == name
    classifier = (model.config.hidden_size + 1) * 1000
    assert (sum(p.numel() for p in model.parameters()) + classifier) / 1e6 == pytest.approx(parameters, abs=0.05)
