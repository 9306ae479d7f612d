# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the kernels that a device chooses: attention, fused updates, augmentation."""

import copy
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from modeling_esvit.attention import choose_biased_kernels
from modeling_esvit.windows import pad_rows
from tests.gpu.findings import Findings, Setting
from training.learning.optimizer import apply_gradients, update_teacher
from training.views.draw import ViewKey, ViewOptions, draw_views
from training.views.on_device import augment, make_statistics, pack_parameters


OURS, DEFAULT = "ours", "default"
BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
TAKEN = {OURS, "math", "efficient"}  # what a model takes; of other kernels the errors are noted
# Largest error beside float64, relative to the largest value: some roundings of the type.
ERRORS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def draw_attention(setting: Setting, dtype: torch.dtype, learned: bool) -> list[torch.Tensor]:
    """Draws queries, keys, values `[B, windows * heads, 49, 32]` and a bias with a shift mask `[1, ., 49, 49]`."""
    generator = torch.Generator().manual_seed(0)
    batch, windows, heads, tokens = setting.choose(32, 2), setting.choose(64, 4), 3, 49
    drawn = [torch.randn(batch, windows * heads, tokens, 32, generator=generator) for _ in range(3)]
    bias = torch.randn(1, windows * heads, tokens, tokens, generator=generator)
    bias[:, : heads * (windows // 2)] += torch.where(torch.arange(tokens) < 25, 0.0, -100.0)
    moved = [tensor.to(setting.device, dtype) for tensor in (*drawn, bias)]
    for tensor in moved[: 4 if learned else 3]:
        tensor.requires_grad_(learned)
    return moved


def check_attention(setting: Setting, findings: Findings) -> None:
    """Compares every kernel of the windows' attention to float64, with and without a gradient; notes their seconds.

    Also notes which kernel torch takes by itself, and which as the model asks for it.
    """
    dtypes = [torch.float32, torch.bfloat16] + [torch.float16] * (setting.device.type == "cuda")
    for dtype in dtypes:
        for learned in (False, True):
            tensors = draw_attention(setting, dtype, learned)
            expected = F.scaled_dot_product_attention(*(t.detach().double() for t in tensors))
            for name in (OURS, DEFAULT, *BACKENDS):
                case = f"{name} {str(dtype).removeprefix('torch.')} {'student' if learned else 'teacher'}"
                with choose_kernels(name, tensors[0]):
                    compare_kernel(setting, findings, case, tensors, expected)


def choose_kernels(name: str, query: torch.Tensor) -> AbstractContextManager:
    """Lets torch take the kernel of this name, what the model lets it choose from, or what it takes by itself."""
    if name in BACKENDS:
        return sdpa_kernel(BACKENDS[name])
    return choose_biased_kernels(query) if name == OURS else nullcontext()


def compare_kernel(
    setting: Setting, findings: Findings, case: str, tensors: list[torch.Tensor], expected: torch.Tensor
) -> None:
    """Checks one kernel, or notes that the device has none for this case. The model's own has a bias in padded rows."""
    name, tokens = case.split()[0], expected.shape[2]

    def list_inputs() -> list[torch.Tensor]:
        return [*tensors[:3], pad_rows(tensors[3])[..., :tokens] if name == OURS else tensors[3]]

    def attend() -> torch.Tensor:
        output = F.scaled_dot_product_attention(*list_inputs())
        if output.requires_grad:
            output.float().square().sum().backward()
        return output

    try:
        found = attend().detach().double()
    except RuntimeError as error:
        findings.note(**{case: str(error).splitlines()[0]})
        return
    error = (found - expected).abs().max().item() / expected.abs().max().item()
    gradients = [tensor.grad for tensor in tensors if tensor.grad is not None]
    broken = sum(int((~gradient.isfinite()).sum()) for gradient in gradients)
    if name in TAKEN:
        findings.check(f"attention {case}", error, ERRORS[tensors[0].dtype])
        findings.check(f"attention {case}, not finite", broken, 0)
    else:
        findings.note(**{f"{case}, error": repr(error), f"{case}, not finite": broken})
    if name not in BACKENDS:
        findings.note(**{f"{case}, kernel": SDPBackend(torch._fused_sdp_choice(*list_inputs())).name})
    findings.note(**{f"{case}, ms": 1e3 * setting.time(attend, setting.choose(10, 1))})


def check_updates(setting: Setting, findings: Findings) -> None:
    """Checks the moving average, AdamW and the scaler in steps that count and in steps that are left out."""
    torch.manual_seed(0)
    student, teacher = (nn.Linear(64, 64).to(setting.device) for _ in range(2))
    for skip in (0.0, 1.0):
        poisoned = copy.deepcopy(student)
        if skip:
            poisoned.weight.data.fill_(float("nan"))
        moved = copy.deepcopy(teacher)
        update_teacher(moved, poisoned, 0.9, torch.tensor(skip, device=setting.device))
        expected = teacher.weight if skip else teacher.weight.lerp(student.weight, 0.1)
        findings.compare(f"moving average, skip {skip:.0f}", moved.weight, expected, 0.0 if skip else 1e-6)
    check_optimizer(setting, findings, student)
    check_scaler(setting, findings, student)
    check_generators(setting, findings)


def check_optimizer(setting: Setting, findings: Findings, network: nn.Module) -> None:
    """Checks that a skipped step of AdamW leaves weights, moments and step counts."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, fused=True)
    for skip in (0.0, 1.0):
        before = copy.deepcopy((network.state_dict(), optimizer.state_dict()["state"]))
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, float("nan") if skip else 1.0)
        apply_gradients(optimizer, torch.tensor(skip, device=setting.device))
        moved = (network.state_dict()["weight"] - before[0]["weight"]).abs().max().item()
        findings.check(f"AdamW, skip {skip:.0f}: largest move", abs(moved - (0.0 if skip else 0.1)), 1e-2 * (not skip))
        counts = [float(state["step"]) for state in optimizer.state_dict()["state"].values()]
        findings.check(f"AdamW, skip {skip:.0f}: steps counted", max(counts), 1)


def check_scaler(setting: Setting, findings: Findings, network: nn.Module) -> None:
    """Checks that an infinite gradient halves the scale of half precision."""
    if setting.device.type != "cuda":
        return
    scaler = torch.amp.GradScaler("cuda", init_scale=1024.0)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    scaler.scale(network(torch.full((1, 64), float("inf"), device=setting.device)).sum()).backward()
    scaler.unscale_(optimizer)
    apply_gradients(optimizer, torch.ones((), device=setting.device), scaler)
    findings.check("scale after an infinite gradient", scaler.get_scale(), 512)


def check_generators(setting: Setting, findings: Findings) -> None:
    """Checks that a generator's state that was saved draws the same again."""
    from training.state.checkpoints import get_rng_state, set_rng_state

    state = get_rng_state()
    drawn = torch.rand(8, device=setting.device)
    set_rng_state(state)
    findings.compare("draws of a generator that was put back", torch.rand(8, device=setting.device), drawn, 0.0)


def check_augmentation(setting: Setting, findings: Findings) -> None:
    """Compares the augmentation of the device, eager and compiled, to that of the CPU, in grey levels."""
    size, number = setting.choose(224, 32), setting.choose(64, 8)
    generator = torch.Generator().manual_seed(0)
    views = torch.randint(0, 256, (number, 3, size, size), dtype=torch.uint8, generator=generator)
    drawn = [draw_views(ViewKey(0, 0, position), (size, size), ViewOptions())[0] for position in range(number)]
    rows = pack_parameters(drawn)
    expected = augment(views, rows, make_statistics("cpu"))
    compiled = torch.compile(augment, dynamic=False, backend=setting.choose("inductor", "aot_eager"))
    there = (views.to(setting.device), rows.to(setting.device), make_statistics(setting.device))
    for name, function in {"eager": augment, "compiled": compiled}.items():
        found = function(*there).cpu()
        levels = (found - expected).abs() * 0.229 * 255
        findings.check(f"augmentation {name}: largest difference in grey levels", levels.max().item(), 3.0)
        findings.check(f"augmentation {name}: mean difference in grey levels", levels.mean().item(), 0.05)
        findings.note(**{f"{name}, ms": 1e3 * setting.time(lambda f=function: f(*there), setting.choose(10, 1))})
