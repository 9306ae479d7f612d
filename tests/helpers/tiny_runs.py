# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes runs of seconds: images, arguments that make any recipe small, and what reads the results."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file

from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.storage.run_log import LOG, read_records
from training.options.pretrain_options import PretrainOptions, parse_options, save_options
from training.pretrain import Pretraining


NETWORK = "--image_size 32 --embed_dim 8 --depths 2 1 --num_heads 1 2 --window_size 4"
HEADS = "--num_prototypes 32 --head_hidden_size 16 --head_bottleneck_size 8"
CROPS = "--global_crop_size 32 --local_crop_sizes 16 --local_crops_numbers 2"
LENGTH = "--epochs 2 --warmup_epochs 1 --warmup_teacher_temp_epochs 1 --batch_size 8 --lr 0.05 --freeze_last_layer 0"
MEANS = "--workers 0 --log_every 1 --tracker none --mixed_precision no"


def write_model(folder: Path, **fields) -> Path:
    """Writes a Swin for images of 32 pixels, with two stages of a block unless `fields` say otherwise."""
    torch.manual_seed(0)
    sizes = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    EsViTModel(EsViTConfig(**{**sizes, **fields})).save_pretrained(folder)
    return folder


def lead_index_away(model: Path) -> None:
    """Lets an index of a model's weights name them in the folder above it."""
    weights = (model / "model.safetensors").rename(model.parent / "private.safetensors")
    names = dict.fromkeys(load_file(weights), f"../{weights.name}")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def flip_bit(file: Path) -> None:
    """Flips a bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def write_images(folder: Path, number: int = 26, classes: str = "", side: int = 48, suffix: str = ".png") -> Path:
    """Writes textured images of `side` pixels into one folder, or in turn into one for each letter of `classes`."""
    for name in classes or ".":
        (folder / name).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(number):
        coarse = Image.fromarray(generator.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        place = folder / classes[index % len(classes)] if classes else folder
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(place / f"{index:02d}{suffix}")
    return folder


def write_labelled_images(folder: Path) -> str:
    """Writes 26 images in two classes to train on and to classify, and returns the options that evaluate so."""
    for name in ("train", "test"):
        (folder / name).mkdir()
        for label in "ab":
            write_images(folder / name / label, 13)
    return f"--knn_every 1 --knn_k 3 --knn_train {folder}/train --knn_test {folder}/test"


def tiny(images: Path, output: Path, changes: str = "", network: str = NETWORK) -> list[str]:
    """Returns the arguments of a run of 2 epochs x 3 steps of 8 images."""
    paths = ["--data", str(images), "--output", str(output)]
    return [*paths, *" ".join([HEADS, CROPS, LENGTH, MEANS, network, changes]).split()]


def tiny_auto(images: Path, output: Path, fields: dict, changes: str = "") -> list[str]:
    """Returns the arguments of such a run with a backbone of transformers, which it reads from its config.json."""
    file = output.with_suffix(".json")
    file.write_text(json.dumps(fields))
    network = "--architecture auto --image_size 64 --global_crop_size 64 --local_crop_sizes 32"
    return [*tiny(images, output, changes, network), "--backbone", str(file)]


def tiny_options(images: Path, output: Path, **changes) -> PretrainOptions:
    """Returns the options of such a run with drop path, whose last layer is frozen for an epoch; they are unchecked."""
    options = parse_options(tiny(images, output, "--drop_path_rate 0.3 --freeze_last_layer 1"))
    return replace(options, **changes)


def train(options: PretrainOptions | list[str], kind: type[Pretraining] = Pretraining) -> Pretraining:
    """Trains in this process as if it were the first run in it: Accelerate keeps the precision of an earlier one.

    Arguments are read and checked; options are taken as they are.
    """
    AcceleratorState._reset_state(reset_partial_state=True)
    run = kind(options if isinstance(options, PretrainOptions) else parse_options(options))
    run.run()
    return run


def write_recipe(options: PretrainOptions, path: Path) -> str:
    save_options(options, path)
    return str(path)


def read_log(output: Path) -> list[dict]:
    records, damaged = read_records(output / LOG)
    assert not damaged
    return records


def read_losses(output: Path) -> list[float]:
    """Reads the losses of a run; lines of an evaluation alone have none."""
    return [record["loss"] for record in read_log(output) if "loss" in record]


def read_weights(output: Path, step: int, network: str) -> dict[str, torch.Tensor]:
    """Reads the weights of the "student" or the "teacher" in the checkpoint of a step."""
    return load_file(output / "checkpoints" / f"step-{step:08d}" / network / "model.safetensors")


def name_checkpoints(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "checkpoints").iterdir())


def assert_equal_weights(a: Path, b: Path, atol: float = 0.0) -> None:
    """Compares the weights of two model folders, bit for bit, or up to `atol`.

    With `atol` the key biases are left out: their gradients are pure rounding noise.
    """
    first, second = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    assert first.keys() == second.keys()
    for name in first:
        x, y = first[name], second[name]
        if atol and name.endswith("qkv.bias"):
            x, y = (torch.cat([t.chunk(3)[0], t.chunk(3)[2]]) for t in (x, y))
        torch.testing.assert_close(x, y, rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
