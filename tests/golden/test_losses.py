# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares losses, matches, gradients and centres to the original's DINOLoss and DDINOLoss (microsoft/esvit, MIT).

There are three consecutive calls each, at epochs 0, 2 and 5 of a temperature schedule, with the centres carried over.
"""

import pytest
import torch

from modeling_esvit.cross_entropy import Method, compute_chunk
from modeling_esvit.losses import esvit_loss, match_regions, update_center
from modeling_esvit.model_outputs import EsViTForPreTrainingOutput
from tests.helpers.golden import load


LAYOUT = [(2, 16), (3, 4)]
BATCH = 3
REGIONS = [16, 16, 4, 4, 4]  # of each crop


def call(loss: str, index: int) -> dict[str, torch.Tensor]:
    """Returns inputs and results of one call; inputs whose gradients are compared require them."""
    prefix = f"{loss}.call{index}."
    tensors = {
        key.removeprefix(prefix): value for key, value in load("golden_losses").items() if key.startswith(prefix)
    }
    for key in ("s_cls", "s_region", "s_fea"):
        if key in tensors:
            tensors[key].requires_grad_()
    return tensors


def output(tensors: dict[str, torch.Tensor], network: str) -> EsViTForPreTrainingOutput:
    """Returns the network's recorded logits as embeddings, with the identity as prototypes."""
    identity = torch.eye(tensors[f"{network}_cls"].shape[1])
    return EsViTForPreTrainingOutput(
        view_embeddings=tensors[f"{network}_cls"],
        view_prototypes=identity,
        region_features=tensors.get(f"{network}_fea"),
        region_embeddings=tensors.get(f"{network}_region"),
        region_prototypes=identity,
    )


def assert_gradient(gradient: torch.Tensor, expected: torch.Tensor) -> None:
    atol = 1e-5 * expected.abs().max().item() + 1e-7
    torch.testing.assert_close(gradient, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("method", [Method(), Method(chunk=compute_chunk)], ids=["CPU", "accelerator"])
@pytest.mark.parametrize("loss, region_weight", [("dino", 0.0), ("ddino", 0.5)])
def test_three_calls(loss, region_weight, method):
    schedule = load("golden_losses")[f"{loss}.teacher_temp_schedule"]
    centers = {"view_center": torch.zeros(40), "region_center": torch.zeros(40)}
    for index in range(3):
        golden = call(loss, index)
        student, teacher = output(golden, "s"), output(golden, "t")
        ours = esvit_loss(
            student,
            teacher,
            LAYOUT,
            **centers,
            teacher_temp=schedule[golden["epoch"]].item(),
            student_temp=0.1,
            region_weight=region_weight,
            method=method,
        ).loss
        assert ours.item() == pytest.approx(golden["loss_f64"].item(), rel=1e-5)
        ours.backward()
        assert_gradient(golden["s_cls"].grad, golden["grad_s_cls"])
        update_center(centers["view_center"], teacher.view_embeddings, teacher.view_prototypes)
        torch.testing.assert_close(centers["view_center"], golden["center_after"][0], rtol=1e-5, atol=1e-7)
        if region_weight:
            assert_gradient(golden["s_region"].grad, golden["grad_s_region"])
            assert golden["grad_s_fea_is_none"] and golden["s_fea"].grad is None
            update_center(centers["region_center"], teacher.region_embeddings, teacher.region_prototypes)
            torch.testing.assert_close(centers["region_center"], golden["center_grid_after"][0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_matches(index):
    """Compares the match of each student region, for all eight pairs of a teacher and another student view."""
    golden = call("ddino", index)
    rows = [BATCH * regions for regions in REGIONS]
    student = [f.view(BATCH, -1, 16) for f in golden["s_fea"].detach().split(rows)]
    teacher = [f.view(BATCH, -1, 16) for f in golden["t_fea"].split(rows[:2])]
    pairs = [(t, s) for t in (0, 1) for s in range(5) if s != t]
    assert len(pairs) == sum(key.startswith("match.") for key in golden)
    for t, s in pairs:
        assert torch.equal(match_regions(student[s], teacher[t]), golden[f"match.t{t}.s{s}"].long())
