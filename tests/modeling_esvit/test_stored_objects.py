# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Models are pickled, stored whole by `torch.save`, and traced: they compute the same afterwards."""

import copy
import io
import pickle

import pytest
import torch

from modeling_esvit import EsViTBackbone, EsViTConfig, EsViTForImageClassification, EsViTForPreTraining, EsViTModel
from tests.helpers.tiny_models import CVT, HEADS, RESNET, VIL, VIT, auto_config


SWIN = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
FAMILIES = {"swin": SWIN, "vil": VIL, "vit": VIT, "cvt": CVT}
CLASSES = (EsViTModel, EsViTForPreTraining, EsViTBackbone, EsViTForImageClassification)


def make(family: str, kind=EsViTModel):
    torch.manual_seed(0)
    config = EsViTConfig(**{**HEADS, **FAMILIES[family]}) if family in FAMILIES else auto_config(RESNET)
    return kind(config).eval(), torch.rand(2, 3, 64, 64)


def through_file(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {"pickle": lambda model: pickle.loads(pickle.dumps(model)), "file": through_file, "copy": copy.deepcopy}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("family", [*FAMILIES, "resnet"])
def test_a_stored_model_computes_the_same(family, kind):
    model, images = make(family, kind)
    expected = model(images, output_hidden_states=True).hidden_states
    for store in COPIES.values():
        copied = store(model)
        assert type(copied) is kind and copied.state_dict().keys() == model.state_dict().keys()
        for each in (copied, model):  # hooks of the one that was stored are as before
            found = each(images, output_hidden_states=True).hidden_states
            assert len(found) == len(expected) > 1
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.torch.jit.trace. is deprecated")
@pytest.mark.parametrize("family", [*FAMILIES, "resnet"])
def test_a_traced_model_computes_the_same(family):
    model, images = make(family)
    traced = torch.jit.trace(model, images, strict=False)
    torch.testing.assert_close(traced(images)["pooler_output"], model(images).pooler_output)
