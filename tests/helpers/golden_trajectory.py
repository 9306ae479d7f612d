# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Repeats the training steps of the golden trajectory: its options, its crops, its first weights."""

from pathlib import Path

import torch
from PIL import Image

from tests.helpers.golden import load, to_pretraining_keys
from training.data.loader import Batch
from training.options.pretrain_options import PretrainOptions
from training.pretrain import Pretraining


def golden_options(folder: Path) -> PretrainOptions:
    images = folder / "images"
    images.mkdir()
    for index in range(10):  # 5 steps of 2; the steps below bring their own crops
        Image.new("RGB", (8, 8)).save(images / f"{index}.png")
    return PretrainOptions(
        data=str(images),
        embed_dim=12,
        depths=[1, 2, 2, 1],
        num_heads=[1, 2, 4, 8],
        drop_path_rate=0.0,
        num_prototypes=96,
        head_hidden_size=48,
        head_bottleneck_size=24,
        warmup_teacher_temp_epochs=1,
        local_crops_numbers=[2],
        epochs=2,
        batch_size=2,
        lr=5e-4 * 256 / 2,
        warmup_epochs=0,
        momentum_teacher=0.9,
        clip_grad=0.3,
        output=str(folder / "run"),
        workers=0,
        mixed_precision="no",
        tracker="none",
    )


def golden_batch(step: int) -> Batch:
    """Returns the original's crops, rolled by (5 s, 3 s) and (2 s, s) pixels; s is the step within the epoch."""
    crops = {name: tensor.float() for name, tensor in load("golden_inputs").items()}
    s = step % 5
    large = torch.cat([crops["g0"], crops["g1"]]).roll((5 * s, 3 * s), dims=(2, 3))
    small = torch.cat([crops["l0"], crops["l1"]]).roll((2 * s, s), dims=(2, 3))
    return Batch(groups=[large, small], positions=torch.arange(2), labels=None, skipped={})


def without_key_bias(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Leaves out the key bias: it changes no output, and AdamW turns the rounding noise of its gradient into steps."""
    if not name.endswith("qkv.bias"):
        return tensor
    q, _, v = tensor.chunk(3)
    return torch.cat([q, v])


def begin(options: PretrainOptions) -> Pretraining:
    """Returns a run with the original's first weights."""
    run, golden = Pretraining(options), load("golden_trajectory")
    weights = {name.removeprefix("init."): value for name, value in golden.items() if name.startswith("init.")}
    for model in (run.student, run.teacher):
        model.load_state_dict(to_pretraining_keys(weights), strict=False)
    return run
