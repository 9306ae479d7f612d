# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the step as a GPU takes it: compiled, augmented on the device, in bfloat16, with fused attention."""

from pathlib import Path

import pytest
import torch
from torch._dynamo.backends.debugging import aot_eager
from transformers import AutoBackbone

from tests.helpers.tiny_models import RESNET, auto_config
from tests.helpers.tiny_runs import read_log, read_losses, tiny, tiny_auto, tiny_options, train, write_images
from training.pretrain import Pretraining


AS_ON_A_GPU = {
    **{"augment_on": "device", "mixed_precision": "bf16", "attn_implementation": "sdpa"},
    **{"batch_size": 4, "gradient_accumulation_steps": 2, "depths": [1, 1], "epochs": 3, "warmup_teacher_temp": 0.02},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture
def graphs(monkeypatch) -> list[torch.fx.GraphModule]:
    """Collects all graphs that are compiled, by a compiler that only traces them, forward and backward."""
    compiled: list[torch.fx.GraphModule] = []
    torch_compile = torch.compile

    def trace(graph, inputs):
        compiled.append(graph)
        return aot_eager(graph, inputs)

    monkeypatch.setattr(torch, "compile", lambda function, **options: torch_compile(function, backend=trace, **options))
    torch._dynamo.reset()
    yield compiled
    torch._dynamo.reset()


class CountingRun(Pretraining):
    """Keeps the number of graphs after each step."""

    graphs: list[torch.fx.GraphModule]

    def train_step(self, batches, step):
        outcome = super().train_step(batches, step)
        self.counts = [*getattr(self, "counts", []), len(self.graphs)]
        return outcome


@pytest.mark.slow
def test_a_run_compiles_in_its_first_step_alone(images, tmp_path, graphs, monkeypatch):
    """Temperatures, rates, epochs, the frozen layer and the batch of an accumulation do not change a graph."""
    monkeypatch.setattr(CountingRun, "graphs", graphs, raising=False)
    run = train(tiny_options(images, tmp_path, compile="on", **AS_ON_A_GPU), CountingRun)
    # What tries the compiler, the augmentation of two sizes, the student, the teacher, and the losses of views and
    # regions: none breaks.
    assert run.counts == [7] * 9
    with_seconds = [record["step"] for record in read_log(tmp_path) if "compile_seconds" in record]
    assert with_seconds == [1]


@pytest.mark.slow
def test_the_end_of_freezing_compiles_once_more(images, tmp_path, graphs, monkeypatch):
    """BatchNorms then normalise by the batch. Layers' rates and the frozen gradients are no part of a graph."""
    monkeypatch.setattr(CountingRun, "graphs", graphs, raising=False)
    AutoBackbone.from_config(auto_config(RESNET).backbone_config).save_pretrained(tmp_path / "resnet")
    frozen = "--epochs 3 --backbone_weights --freeze_backbone_epochs 1 --layer_decay 0.75 --compile on"
    arguments = tiny_auto(images, tmp_path / "run", RESNET, frozen)
    arguments[arguments.index("--backbone") + 1] = str(tmp_path / "resnet")
    run = train(arguments, CountingRun)
    first, later = run.counts[:3], run.counts[3:]
    assert len(set(first)) == len(set(later)) == 1 and len(later) == 6 and first[0] < later[0]


@pytest.mark.slow
def test_the_switch_of_a_vil_to_all_chunks_compiles_once_more(images, tmp_path, graphs, monkeypatch):
    """The chunks that a step draws before it are no part of a graph."""
    monkeypatch.setattr(CountingRun, "graphs", graphs, raising=False)
    network = "--architecture vil-tiny --image_size 64 --embed_dim 8 --depths 1 1 1 1 --num_heads 1 1 2 2"
    sparse = "--global_crop_size 64 --local_crop_sizes 32 --vil_mode 1 --vil_mode_switch 0.5 --compile on"
    run = train(tiny(images, tmp_path / "run", sparse, network), CountingRun)
    first, later = run.counts[:3], run.counts[3:]
    assert len(set(first)) == len(set(later)) == 1 and len(later) == 3 and first[0] < later[0]


@pytest.mark.slow
def test_the_compiled_step_equals_the_plain_one(images, tmp_path, graphs):
    same = {**AS_ON_A_GPU, "mixed_precision": "no", "drop_path_rate": 0.0, "max_steps": 2}
    train(tiny_options(images, tmp_path / "compiled", compile="on", **same))
    assert graphs
    train(tiny_options(images, tmp_path / "plain", **same))
    assert read_losses(tmp_path / "compiled") == pytest.approx(read_losses(tmp_path / "plain"), rel=1e-4)
