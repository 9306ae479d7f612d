# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the real programs on the device: training with a stop between, waits of the host, features, the loader."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from PIL import Image

from modeling_esvit import EsViTConfig, EsViTModel
from tests.gpu.findings import Findings, Setting
from tests.gpu.speed import SMALL, build_step
from tests.helpers.tiny_runs import write_images
from training.data.loader import iterate
from training.learning.networks import build_loader
from training.options.pretrain_options import PretrainOptions
from training.pretrain import Pretraining
from training.publishing.source import read_log


LOG = "log.jsonl"
EXIT_CODE = 75  # of a run that a signal stopped
WAIT = 0.05  # share of a step that may go by in waiting for the loader


def make_command(setting: Setting, images: Path, output: Path, **options) -> list[str]:
    """Returns the command line of a training run of some steps."""
    sizes = setting.choose({"architecture": "swin-tiny", "num_prototypes": 4096}, SMALL)
    common = {"data": images, "output": output, "tracker": "none", "epochs": 2, "warmup_epochs": 1, "log_every": 1}
    common |= {"warmup_teacher_temp_epochs": 1, "batch_size": setting.choose(32, 4)}
    words = ["training/pretrain.py"]
    for name, value in {**sizes, **common, **options}.items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return [sys.executable, *words]


def start(command: list[str]) -> subprocess.Popen:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")


def finish(process: subprocess.Popen, code: int = 0) -> str:
    """Waits for a program, and returns what it printed.

    Raises:
        RuntimeError: It ended with another code.
    """
    words, _ = process.communicate()
    if process.returncode != code:
        raise RuntimeError(f"{process.args} ended with {process.returncode}, not {code}:\n{words[-3000:]}")
    return words


def check_program(setting: Setting, findings: Findings) -> None:
    """Trains from JPEG files, stops by SIGTERM, continues; in half precision and with k-NN, too."""
    number, side = setting.choose(320, 16), setting.choose(320, 48)
    images = write_images(setting.folder / "images", number, "ab", side, ".jpg")
    others = write_images(setting.folder / "others", number // 4, "ab", side, ".jpg")
    whole, parts = setting.folder / "whole", setting.folder / "parts"
    finish(start(make_command(setting, images, whole)))
    stopped = start(make_command(setting, images, parts))
    while len(read_log(parts / LOG)) < 2 and stopped.poll() is None:
        time.sleep(0.02)
    stopped.send_signal(signal.SIGTERM)
    finish(stopped, EXIT_CODE)
    findings.note(stopped_after=len(read_log(parts / LOG)))
    finish(start(make_command(setting, images, parts)))
    losses = [[record["loss"] for record in read_log(folder / LOG)] for folder in (whole, parts)]
    furthest = max(abs(one - other) for one, other in zip(*losses, strict=True))
    findings.check("losses of a run that was stopped, beside one that was not", furthest, 1e-3)
    knn = {"knn_every": 1, "knn_train": images, "knn_test": others, "knn_k": 3, "max_steps": 2}
    scored = setting.folder / "knn"
    finish(start(make_command(setting, images, scored, **knn)))
    findings.note(knn={name: value for name, value in read_log(scored / LOG)[-1].items() if name.startswith("knn")})
    if setting.device.type == "cuda":
        half = setting.folder / "half"
        finish(start(make_command(setting, images, half, mixed_precision="fp16", max_steps=5)))
        findings.note(half_losses=[record["loss"] for record in read_log(half / LOG)])


def check_waits(setting: Setting, findings: Findings) -> None:
    """Takes steps that must not make the host wait for the device: torch raises an error if one does."""
    step = build_step(setting, setting.choose(32, 2), compile="off")
    step()
    if setting.device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    losses = [step() for _ in range(3)]
    if setting.device.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")
    findings.note(losses=[float(loss) for loss in losses])


def check_serving(setting: Setting, findings: Findings) -> None:
    """Compares the features of `embed` and of the pipeline on the device to those of the CPU."""
    from transformers import BitImageProcessor, pipeline

    from modeling_esvit.embed import Embedder

    torch.manual_seed(0)
    sizes = setting.choose({}, {name: SMALL[name] for name in ("embed_dim", "depths", "num_heads", "image_size")})
    folder = setting.folder / "model"
    EsViTModel(EsViTConfig(**sizes)).save_pretrained(folder)
    side = setting.choose(224, 32)
    BitImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(folder)
    images = write_images(setting.folder / "images", 4, "ab", side, ".jpg")
    pictures = [Image.open(path).convert("RGB") for path in sorted(images.glob("*/*.jpg"))]
    found = {}
    for device in dict.fromkeys([torch.device("cpu"), setting.device]):
        embedder = Embedder.from_pretrained(str(folder), device=device, dtype="float32", compile="off")
        pixels = [embedder.prepare(picture) for picture in pictures]
        pipe = pipeline("image-feature-extraction", model=str(folder), device=device)
        found[device.type] = (embedder.features(pixels, regions=False)[0], torch.tensor(pipe(pictures[0])))
    for name, index in {"embed": 0, "pipeline": 1}.items():
        findings.compare(f"features of {name}", found[setting.device.type][index], found["cpu"][index], 1e-4)


def time_loader(setting: Setting, findings: Findings) -> None:
    """Measures what the loader alone delivers with more and more workers, then how long the steps wait for it."""
    number, side = setting.choose(2048, 16), setting.choose(480, 48)
    images, batch = write_images(setting.folder / "images", number, "ab", side, ".jpg"), setting.choose(128, 4)
    cores = len(os.sched_getaffinity(0))
    for workers in setting.choose((4, 8, 14), (0, 1)):
        options = {"data": str(images), "output": str(setting.folder / str(workers)), "workers": workers}
        options |= {"epochs": 1, "warmup_epochs": 0, "warmup_teacher_temp_epochs": 0, "batch_size": batch}
        run = Pretraining(PretrainOptions(**options, tracker="none", **setting.choose({"num_prototypes": 4096}, SMALL)))
        started, seen = time.perf_counter(), 0
        for loaded in iterate(build_loader(run.options, run.session.source, run.plan, run.accelerator, 0)):
            seen += len(loaded.positions)
        findings.note(**{f"images_per_s_{workers}_workers": seen / (time.perf_counter() - started), "cores": cores})
    output = setting.folder / "run"
    command = make_command(setting, images, output, batch_size=batch, workers=setting.choose(14, 1))
    finish(start(command))
    records = read_log(output / LOG)
    findings.note(
        images_per_s=[record["images_per_second"] for record in records if "images_per_second" in record][-3:]
    )
    waits = [record["data_wait"] for record in records if "data_wait" in record][2:]
    if not setting.tiny:
        findings.check("share of a step that waits for the loader", sum(waits) / len(waits), WAIT)
