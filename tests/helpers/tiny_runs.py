# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs of seconds: images, and what makes any recipe small."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from modeling_esvit import EsViTConfig, EsViTModel


NETWORK = "--image_size 32 --embed_dim 8 --depths 2 1 --num_heads 1 2 --window_size 4"
HEADS = "--num_prototypes 32 --head_hidden_size 16 --head_bottleneck_size 8"
CROPS = "--global_crop_size 32 --local_crop_sizes 16 --local_crops_numbers 2"
LENGTH = "--epochs 2 --warmup_epochs 1 --warmup_teacher_temp_epochs 1 --batch_size 8 --lr 0.05 --freeze_last_layer 0"
MEANS = "--num_workers 0 --log_every 1 --tracker none"


def write_model(folder: Path) -> Path:
    """A Swin of two stages for images of 32 pixels, with random weights."""
    torch.manual_seed(0)
    sizes = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    EsViTModel(EsViTConfig(**sizes)).save_pretrained(folder)
    return folder


def write_images(folder: Path, number: int = 26, classes: str = "") -> Path:
    """Textured images of 48 pixels, in one folder or in turn in one for each letter of `classes`."""
    for name in classes or ".":
        (folder / name).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(number):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        place = folder / classes[index % len(classes)] if classes else folder
        coarse.resize((48, 48), Image.Resampling.BICUBIC).save(place / f"{index:02d}.png")
    return folder


def write_labelled_images(folder: Path) -> str:
    """26 images in two classes to train on, and the same to be classified; the options that evaluate so."""
    for name in ("train", "test"):
        (folder / name).mkdir()
        for label in "ab":
            write_images(folder / name / label, 13)
    return f"--knn_every 1 --knn_k 3 --knn_train {folder}/train --knn_test {folder}/test"


def tiny(images: Path, output: Path, changes: str = "") -> list[str]:
    """Arguments of a run of 2 epochs x 3 steps of 8 images."""
    paths = ["--data", str(images), "--output_dir", str(output)]
    return [*paths, *" ".join([NETWORK, HEADS, CROPS, LENGTH, MEANS, changes]).split()]


def losses_of(output: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (output / "log.jsonl").read_text().splitlines()]
