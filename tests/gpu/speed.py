# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Times the training step on the device: eager, compiled, small, beside the plain reference; its parts and families."""

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch

from modeling_esvit import cross_entropy
from modeling_esvit.cross_entropy import CHUNK_ROWS, Method, compute_chunk
from modeling_esvit.losses import esvit_loss, make_crop_layout
from tests.benchmarks.bench_step import SCHEDULES, our_step, pretraining, random_groups
from tests.benchmarks.reference import ReferenceStep
from tests.gpu.findings import Findings, Setting


SMALL = {
    **{"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "image_size": 32, "window_size": 4},
    **{"num_prototypes": 32, "head_hidden_size": 16, "head_bottleneck_size": 8},
    **{"global_crop_size": 32, "local_crop_sizes": [16], "local_crops_numbers": [2]},
}
GOALS = {"H200": 1200, "H100": 700}  # images a second that a step of Swin-T W7 is to reach, by a device's name
CHUNKS = (2048, CHUNK_ROWS, 8192)  # rows of a loss's chunk that are timed
FAMILIES = {
    "swin-base": {"architecture": "swin-base"},
    "swin-tiny, window 14": {"architecture": "swin-tiny", "window_size": 14},
    "vil-tiny": {"architecture": "vil-tiny"},
    "cvt-tiny": {"architecture": "cvt-tiny"},
}


def find_goal(device: str) -> int | None:
    """Returns the images a second that a device of this name is to reach; None for one of which nothing is known."""
    return next((goal for part, goal in GOALS.items() if part in device), None)


def find_crops(setting: Setting) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns sizes and numbers of the global and the local crops."""
    return setting.choose(((224, 96), (2, 8)), ((32, 16), (2, 2)))


def build_step(setting: Setting, batch: int, **options) -> Callable[[], object]:
    """Builds one update of the real program, whose crops lie on the device already."""
    precision = "bf16" if setting.device.type == "cuda" else "no"
    sizes, numbers = find_crops(setting)
    chosen = {"mixed_precision": precision, **setting.choose({}, SMALL), **options}
    return our_step(batch, sizes, numbers, device=str(setting.device), **chosen)


def time_step(setting: Setting, findings: Findings, step: Callable[[], object], batch: int) -> float:
    """Notes the seconds of the first step, of a later one, images a second and peak memory; returns images a second."""
    started = time.perf_counter()
    step()
    setting.wait()
    first = time.perf_counter() - started
    seconds = setting.time(step, setting.choose(20, 1))
    findings.note(batch=batch, first_step_s=first, step_s=seconds, images_per_s=batch / seconds)
    findings.note(peak_gb=setting.peak_memory())
    return batch / seconds


def time_eager_step(setting: Setting, findings: Findings) -> None:
    batch = setting.choose(128, 2)
    time_step(setting, findings, build_step(setting, batch, compile="off"), batch)


def time_compiled_step(setting: Setting, findings: Findings) -> None:
    """Times the step as it is by default on a GPU, and checks that nothing is compiled after the first one."""
    from torch._dynamo.utils import counters

    batch = setting.choose(128, 2)
    step = build_step(setting, batch, compile=setting.choose("on", "off"))
    step()
    graphs = counters["stats"]["unique_graphs"]
    speed = time_step(setting, findings, step, batch)
    findings.check("graphs compiled after the first step", counters["stats"]["unique_graphs"] - graphs, 0)
    goal = find_goal(torch.cuda.get_device_name(setting.device)) if setting.device.type == "cuda" else None
    if goal and not setting.tiny:
        findings.check("images a second, Swin-T, bf16, compiled", speed, goal, at_least=True)


def time_small_step(setting: Setting, findings: Findings) -> None:
    """Times a batch of 32, which the host's launches may limit."""
    batch = setting.choose(32, 2)
    time_step(setting, findings, build_step(setting, batch, compile=setting.choose("on", "off")), batch)


def time_reference_step(setting: Setting, findings: Findings) -> None:
    """Times the plain reference, in fp16 with a scaler as the original trained; compares it with the compiled step."""
    batch = setting.choose(128, 2)
    sizes, numbers = find_crops(setting)
    run = pretraining(batch, str(setting.folder), mixed_precision="no", **setting.choose({}, SMALL))
    half = setting.device.type == "cuda"
    options = {**SCHEDULES, "teacher_temp": run.plan.teacher_temp[0], "freeze_last_layer": False, "half": half}
    step = ReferenceStep(run.student, run.teacher, batch, **options)
    groups = [group.to(setting.device) for group in random_groups(batch, sizes, numbers)]
    speed = time_step(setting, findings, functools.partial(step, groups), batch)
    compiled = setting.folder.parent / "step_compiled" / "result.json"
    if compiled.is_file() and not setting.tiny:
        ours = json.loads(compiled.read_text())["values"]["images_per_s"]
        findings.check("times as fast as the reference", ours / speed, 3, at_least=True)


def profile_step(setting: Setting, findings: Findings) -> None:
    """Writes where the time of one eager and one compiled step goes, as text, and their numbers of kernels."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (setting.device.type == "cuda")
    by = "self_cuda_time_total" if setting.device.type == "cuda" else "self_cpu_time_total"
    for name in ["off", *setting.choose(["on"], [])]:
        step = build_step(setting, setting.choose(64, 2), compile=name)
        step()
        with profile(activities=activities) as recorded:
            step()
            setting.wait()
        events = recorded.key_averages()
        Path(setting.folder / f"compile_{name}.txt").write_text(events.table(sort_by=by, row_limit=60))
        findings.note(**{f"calls_compile_{name}": sum(event.count for event in events)})


def time_loss(setting: Setting, findings: Findings) -> None:
    """Times both losses of a batch alone: by products of float32, TF32 and, in chunks of several sizes, bfloat16."""
    batch = setting.choose(128, 2)
    step = build_step(setting, batch, compile="off")
    run = step.run  # type: ignore[attr-defined]
    sizes, numbers = find_crops(setting)
    crops = [group.to(setting.device) for group in random_groups(batch, sizes, numbers)]
    with torch.no_grad(), run.accelerator.autocast():
        student, teacher = run.student(crops), run.teacher(crops[:1])
    layout = make_crop_layout(crops, batch, run.student.config.region_grid)
    leaves = {name: value.detach().requires_grad_() for name, value in student.items()}

    def iteration(product_type: torch.dtype | None = None) -> None:
        with run.accelerator.autocast():
            loss = esvit_loss(
                type(student)(leaves),
                teacher,
                layout,
                view_center=run.teacher.view_center,
                region_center=run.teacher.region_center,
                teacher_temp=0.04,
                method=Method(compute_chunk, product_type),
            )
        loss.loss.backward()

    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        findings.note(**{f"ms_{precision}": 1e3 * setting.time(iteration, setting.choose(10, 1))})
    for rows in CHUNKS:
        with patch.object(cross_entropy, "CHUNK_ROWS", rows):
            seconds = setting.time(lambda: iteration(torch.bfloat16), setting.choose(10, 1))
        findings.note(**{f"ms_bfloat16_{rows}_rows": 1e3 * seconds})
    findings.note(peak_gb=setting.peak_memory())


def time_architectures(setting: Setting, findings: Findings) -> None:
    """Takes five steps of the larger and the other architectures, one after the other."""
    for name, options in setting.choose(FAMILIES, {"small": {}}).items():
        batch = setting.choose(32, 2)
        step = build_step(setting, batch, compile="off", **options)
        losses = [float(step()) for _ in range(5)]
        findings.check(f"{name}: steps without a finite loss", sum(loss != loss for loss in losses), 0)
        findings.note(**{f"{name}, images_per_s": batch / setting.time(step, 3), f"{name}, gb": setting.peak_memory()})
        del step
        if setting.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
