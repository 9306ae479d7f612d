# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks ResNet-50 against torchvision's, whose weights it takes."""

import pytest
import torch
import torchvision

from modeling_esvit import (
    EsViTConfig,
    EsViTModel,
)
from modeling_esvit.conversion.original_resnet import infer_resnet_fields, to_torchvision, to_transformers


@pytest.fixture(scope="module")
def resnet():
    """torchvision's, with running statistics of their own."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def test_names_of_resnets(resnet):
    names = [name for name in resnet.state_dict() if not name.startswith("fc.")]
    fields = infer_resnet_fields(resnet.state_dict())
    assert (fields["depths"], fields["hidden_sizes"]) == ([3, 4, 6, 3], [256, 512, 1024, 2048])
    with torch.device("meta"):
        ours = EsViTModel(EsViTConfig.from_architecture("resnet-50")).encoder.backbone.state_dict()
    assert {to_transformers(name) for name in names} == set(ours)
    assert {to_torchvision(name) for name in ours} == set(names)
    assert sum(p.numel() for name, p in resnet.named_parameters() if not name.startswith("fc.")) == 23_508_032


@pytest.mark.parametrize("size", [(224, 224), (97, 131)])
@torch.no_grad()
def test_resnet_50_equals_that_of_torchvision(resnet, size):
    model = EsViTModel(EsViTConfig.from_architecture("resnet-50")).eval()
    weights = {to_transformers(n): t for n, t in resnet.state_dict().items() if not n.startswith("fc.")}
    model.encoder.backbone.load_state_dict(weights)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.Sequential(*list(resnet.children())[:-2])(image)
    scale = expected.abs().max()
    output = model(image)
    torch.testing.assert_close(output.last_hidden_state / scale, expected.flatten(2).mT / scale, rtol=0, atol=1e-5)
    torch.testing.assert_close(output.pooler_output / scale, expected.mean(dim=(2, 3)) / scale, rtol=0, atol=1e-5)
