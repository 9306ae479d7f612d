# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Blocks that are computed again in the backward pass, in two processes: no gradient counts twice, and none is missing.

microsoft/FocalNet issue 4, transformers issue 23018: DDP refuses a parameter that is marked ready twice.
"""

import json

import pytest

from tests.helpers.commands import run_program, torchrun
from tests.helpers.tiny_models import CVT, VIL, VIT
from tests.helpers.tiny_runs import read_losses, tiny


pytestmark = pytest.mark.slow

# A user's own program. Its weights are compared with those of processes that keep what they computed.
TRAINER = """
import json, os, sys
import torch
from transformers import Trainer, TrainingArguments
from modeling_esvit import EsViTConfig, EsViTForImageClassification

fields, checkpointing, output = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
torch.manual_seed(0)
model = EsViTForImageClassification(EsViTConfig(**{"image_size": 32, "drop_path_rate": 0.0, "num_labels": 3, **fields}))
images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
rows = [{"pixel_values": image, "labels": index % 3} for index, image in enumerate(images)]
size = 8 // int(os.environ.get("WORLD_SIZE", 1))
arguments = TrainingArguments(
    output_dir=output, use_cpu=True, per_device_train_batch_size=size, max_steps=2, save_strategy="no", report_to=[],
    learning_rate=0.1, optim="sgd", max_grad_norm=0.0, lr_scheduler_type="constant", disable_tqdm=True, **checkpointing,
)
trainer = Trainer(model, arguments, train_dataset=rows)
trainer.train()
if trainer.is_world_process_zero():
    weights = {name: [float(weight.double().sum()), float(weight.double().square().sum())]
               for name, weight in model.named_parameters()}
    print("WEIGHTS", json.dumps(weights))
"""
FAMILIES = {
    "swin": {"embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4},
    **{"vit": VIT, "cvt": CVT, "vil": VIL},
}


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_trainer_in_two_processes(family, reentrant, tmp_path):
    (tmp_path / "own.py").write_text(TRAINER)

    def train(command, **options) -> dict[str, list[float]]:
        words = [*command, tmp_path / "own.py", json.dumps(FAMILIES[family]), json.dumps(options), tmp_path / "out"]
        done = run_program(words, PYTHONPATH=".")
        return json.loads(done.stdout.rpartition("WEIGHTS ")[2])

    kept = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": reentrant}}
    found, expected = train(torchrun(2), **kept), train(torchrun(2))
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-4), name


def test_pretraining_in_two_processes(images, tmp_path):
    same = "--drop_path_rate 0 --batch_size 4"
    for name, more in (("kept", ""), ("again", "--gradient_checkpointing")):
        run_program([*torchrun(2), "training/pretrain.py", *tiny(images, tmp_path / name, f"{same} {more}")])
    assert read_losses(tmp_path / "again") == pytest.approx(read_losses(tmp_path / "kept"), rel=1e-5)
