# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""A backbone of early stages leaves no parameter without a gradient, so that DDP need not search for it."""

import pytest
import torch

from modeling_esvit import EsViTBackbone, EsViTConfig
from modeling_esvit.modeling_esvit import find_unused_parameters
from tests.helpers.commands import run_program, torchrun
from tests.helpers.tiny_models import BACKBONES, CVT, HEADS, VIL, VIT, auto_config


SWIN = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
FAMILIES = {"swin": SWIN, "vil": VIL, "vit": VIT, "cvt": CVT}


def backward(model: EsViTBackbone, side: int) -> None:
    maps = model.train()(torch.rand(2, 3, side, side)).feature_maps
    torch.stack([each.square().sum() for each in maps]).sum().backward()


def list_without_gradient(model: EsViTBackbone) -> list[str]:
    return [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]


@pytest.mark.parametrize("stages", [["stem"], ["stem", "stage1"], ["stage2"]])
@pytest.mark.parametrize("family", FAMILIES)
def test_early_stages_alone_are_trained(family, stages, tmp_path):
    config = EsViTConfig(**{**HEADS, **FAMILIES[family], "out_features": stages})
    model = EsViTBackbone(config)
    model.save_pretrained(tmp_path)
    for each in (model, EsViTBackbone.from_pretrained(tmp_path)):
        backward(each, 32)
        assert list_without_gradient(each) == []
        frozen = [name for name, parameter in each.named_parameters() if not parameter.requires_grad]
        assert bool(frozen) == (stages != ["stage2"])
        assert {name.removeprefix("esvit.") for name in frozen} == (
            find_unused_parameters(config, tuple(stages)) if frozen else set()
        )


@pytest.mark.parametrize("name", ["resnet", "convnextv2", "hiera", "dinov2"])
def test_backbones_of_transformers_train_the_norms_of_their_stages(name):
    stages = auto_config(BACKBONES[name]).stage_names
    for chosen in ([stages[1]], [stages[1], stages[-1]]):
        model = EsViTBackbone(auto_config(BACKBONES[name], out_features=chosen))
        backward(model, 64)
        assert list_without_gradient(model) == []
        norms = [each for each, p in model.named_parameters() if f"hidden_states_norms.{stages[1]}." in each]
        assert all(model.get_parameter(each).requires_grad for each in norms)


SCRIPT = """
import torch
from accelerate import Accelerator
from modeling_esvit import EsViTBackbone, EsViTConfig
accelerator = Accelerator(cpu=True)
sizes = {"image_size": 32, "embed_dim": 8, "depths": [1, 1, 1], "num_heads": [1, 2, 2], "window_size": 4}
model = accelerator.prepare(EsViTBackbone(EsViTConfig(**sizes, out_features=["stage1", "stage2"])))
for step in range(3):
    maps = model(torch.rand(2, 3, 32, 32)).feature_maps
    accelerator.backward(sum(each.square().sum() for each in maps))
print(f"steps {step + 1}\\n", end="")  # in one piece, beside that of the other process
"""


@pytest.mark.slow
def test_two_processes_train_early_stages(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    assert run_program([*torchrun(), tmp_path / "train.py"]).stdout.count("steps 3") == 2
