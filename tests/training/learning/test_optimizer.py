# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Compares parameter groups, clipping, frozen layer and EMA with the original (microsoft/esvit, MIT)."""

import json

import pytest
import torch
from torch import nn

from modeling_esvit import EsViTConfig, EsViTForPreTraining
from tests.helpers.golden import FIXTURES, load, to_pretraining_keys
from training.learning.optimizer import (
    clip_gradients,
    freeze_last_layer,
    group_parameters,
    set_schedules,
    update_teacher,
)


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_parameter_groups(norm_last_layer):
    expected = json.loads((FIXTURES / "golden_param_groups.json").read_text())[
        f"swin.norm_last_layer_{norm_last_layer}"
    ]
    config = EsViTConfig(
        embed_dim=12,
        depths=[1, 1, 2, 1],
        num_heads=[1, 2, 4, 8],
        num_prototypes=8,
        head_hidden_size=8,
        head_bottleneck_size=8,
        norm_last_layer=norm_last_layer,
    )
    model = EsViTForPreTraining(config)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, plain = group_parameters(model)
    for group, golden in ((decayed, "regularized"), (plain, "not_regularized")):
        ours = {names[id(parameter)] for parameter in group["params"]}
        assert ours == set(to_pretraining_keys(dict.fromkeys(expected[golden], torch.empty(0))))
    assert plain["weight_decay"] == 0.0


def test_schedules_reach_the_optimizer():
    optimizer = torch.optim.AdamW(group_parameters(nn.Linear(2, 2)), lr=0.0)
    set_schedules(optimizer, lr=0.3, weight_decay=0.1)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.3, 0.1), (0.3, 0.0)]


def test_clipping_is_per_parameter():
    golden = load("golden_optim_utils")
    names = [key.removeprefix("clip.grad_before.") for key in golden if key.startswith("clip.grad_before.")]
    parameters = [nn.Parameter(golden[f"clip.param.{name}"]) for name in names]
    for name, parameter in zip(names, parameters, strict=True):
        parameter.grad = golden[f"clip.grad_before.{name}"].clone()
    clip_gradients([*parameters, nn.Parameter(torch.zeros(2))], max_norm=3.0)
    for name, parameter in zip(names, parameters, strict=True):
        torch.testing.assert_close(parameter.grad, golden[f"clip.grad_after.{name}"], rtol=1e-6, atol=0)
    norms = [golden[f"clip.grad_before.{name}"].norm() for name in names]
    assert min(norms) < 3.0 < max(norms)  # the golden gradients exercise both sides


def test_only_the_last_layers_are_frozen():
    config = EsViTConfig(
        embed_dim=8,
        depths=[1],
        num_heads=[1],
        num_prototypes=4,
        head_hidden_size=4,
        head_bottleneck_size=4,
        norm_last_layer=False,
    )
    model = EsViTForPreTraining(config)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    freeze_last_layer(model)
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    heads = ("view_head", "region_head")
    assert without == {f"{head}.last_layer.weight_{which}" for head in heads for which in "gv"}


def test_ema():
    golden = load("golden_optim_utils")
    teacher, student = nn.Linear(4, 5, bias=False), nn.Linear(4, 5, bias=False)
    teacher.weight.data.copy_(golden["ema.teacher_before"])
    student.weight.data.copy_(golden["ema.student"])
    update_teacher(teacher, student, 0.9963, torch.tensor(0.0))
    torch.testing.assert_close(teacher.weight.data, golden["ema.teacher_after_m0.9963"], rtol=1e-6, atol=1e-7)
