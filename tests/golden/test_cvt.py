# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares the CvT backbone to the original (microsoft/esvit, MIT): features, stages, crops, and what training
makes of running statistics. In training the tolerance is 1e-4, because batch statistics of few values magnify the
rounding of the original itself: what it computed in float32 is 1.2e-5 from the result in float64.
"""

import pytest
import torch

from modeling_esvit import EsViTConfig, EsViTModel
from tests.helpers.accelerator import attention_for
from tests.helpers.cvt_models import golden_model
from tests.helpers.golden import crop_groups, load, thin


TOLERANCE = {"rtol": 0, "atol": 1e-5}
IN_TRAINING = {"rtol": 0, "atol": 1e-4}


@pytest.fixture(scope="module", params=["eager", "sdpa", "accelerator"])
def model(request):
    with attention_for(request.param) as name:
        yield golden_model(name)


@pytest.fixture(scope="module")
def golden():
    return load("golden_cvt")


@torch.no_grad()
@pytest.mark.parametrize("size", ["x224", "x96", "x101", "x168", "x200", "x200x168"])
def test_features(size, golden, model, images):
    output = model.esvit(images[size])
    torch.testing.assert_close(output.pooler_output, golden[f"{size}.pooled"], **TOLERANCE)
    torch.testing.assert_close(output.last_hidden_state, golden[f"{size}.region"], **TOLERANCE)
    rows, columns = model.config.region_grid(*images[size].shape[-2:])
    assert output.last_hidden_state.shape[1] == rows * columns


@torch.no_grad()
@pytest.mark.parametrize("size", ["x224", "x96"])
def test_blocks_and_stages(size, golden, model, images):
    for n in (1, 4):
        features = model.esvit.n_last_blocks_features(images[size], n)
        torch.testing.assert_close(features, golden[f"{size}.n_last_{n}"], **TOLERANCE)
    states = model.esvit(images[size], output_hidden_states=True).reshaped_hidden_states
    for stage in (1, 2, 3):
        key = f"{size}.b0.stage{stage}.out"
        torch.testing.assert_close(thin(key, states[stage + 1][:1]), golden[key], **TOLERANCE)


def check_crops(output, golden, name: str, tolerance: dict) -> None:
    """Checks the logits of both heads and the region features of all crops of both sizes, from one call."""
    view = output.view_embeddings @ output.view_prototypes.T
    region = output.region_embeddings @ output.region_prototypes.T
    torch.testing.assert_close(view, golden[f"{name}.head"], **tolerance)
    for key, value in ((f"{name}.head_dense", region), (f"{name}.fea", output.region_features)):
        torch.testing.assert_close(thin(key, value), golden[key], **tolerance)


@torch.no_grad()
def test_crops_together(golden, model):
    check_crops(model(crop_groups()), golden, "mc", TOLERANCE)


@pytest.mark.parametrize("recomputed", [False, True])
def test_training(recomputed, golden, request):
    """Batch statistics of each resolution, in the order of the resolutions; recomputation does not count twice."""
    model = golden_model("eager").train()
    if recomputed:
        model.gradient_checkpointing_enable()
    output = model(crop_groups())
    check_crops(output, golden, "mc_train", IN_TRAINING)
    (output.view_embeddings.sum() + output.region_embeddings.sum()).backward()
    after = {key.removeprefix("after."): value for key, value in golden.items() if key.startswith("after.")}
    assert len(after) == 18
    buffers = dict(model.esvit.encoder.named_buffers())
    for name, value in after.items():
        torch.testing.assert_close(buffers[name], value, **TOLERANCE)


def test_parameters():
    with torch.device("meta"):
        model = EsViTModel(EsViTConfig.from_architecture("cvt-tiny"))
    parameters = list(model.parameters())
    assert sum(parameter.numel() for parameter in parameters) == 29_303_616
    assert len(parameters) == 198 and len(model.state_dict()) == 234
