# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks numbers on the device: what the original computes, and what the machine delivers."""

import json
import platform
from importlib.metadata import version

import torch
from safetensors import safe_open

from modeling_esvit.images.precision import has_native_bfloat16
from modeling_esvit.losses import esvit_loss
from tests.gpu.findings import Findings, Setting
from tests.helpers import cvt_models, vil_models
from tests.helpers.golden import FIXTURES, inputs, load, pretraining_model, to_pretraining_keys
from tests.helpers.golden_trajectory import begin, golden_batch, golden_options, without_key_bias
from training.pretrain import Pretraining


MODELS = {
    "swin_w7": lambda attention: pretraining_model("golden_swin_w7", attention),
    "swin_w14": lambda attention: pretraining_model("golden_swin_w14", attention),
    "vit_p16": lambda attention: pretraining_model("golden_vit_p16", attention),
    "cvt": cvt_models.golden_model,
    "vil": vil_models.golden_model,
}
FEATURES, LOSSES, WEIGHTS = 2e-5, 1e-5, 1e-5  # the limits of the same comparisons on a CPU, in tests/golden


def describe_machine(setting: Setting, findings: Findings) -> None:
    """Notes versions and device, and measures products and copies."""
    packages = ("torch", "transformers", "accelerate", "numpy")
    findings.note(python=platform.python_version(), **{name: version(name) for name in packages})
    findings.note(native_bfloat16=has_native_bfloat16(setting.device))
    if setting.device.type == "cuda":
        properties = torch.cuda.get_device_properties(setting.device)
        findings.note(name=properties.name, gb=properties.total_memory / 1e9, capability=[properties.major])
    size = setting.choose(8192, 64)
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.randn(size, size, device=setting.device, dtype=dtype)
        seconds = setting.time(lambda matrix=matrix: matrix @ matrix, 5)
        findings.note(**{f"tflops_{dtype}".replace("torch.", ""): 2 * size**3 / seconds / 1e12})
    host = torch.empty(setting.choose(1 << 28, 1 << 16), dtype=torch.uint8, pin_memory=setting.device.type == "cuda")
    there = host.to(setting.device)
    copies = {"host_to_device": host, "on_device": torch.empty_like(there)}
    for name, source in copies.items():
        seconds = setting.time(lambda source=source: there.copy_(source, non_blocking=True), 5)
        findings.note(**{f"gb_per_s_{name}": len(host) / seconds / 1e9})


@torch.no_grad()
def check_golden_outputs(setting: Setting, findings: Findings) -> None:
    """Compares view and region features of all families, and losses, to what the original computes."""
    images = {name: image.to(setting.device) for name, image in inputs().items() if name in ("x224", "x96")}
    for name, build in MODELS.items():
        golden = load(f"golden_{name}")
        for attention in ("eager", "sdpa"):
            model = build(attention).to(setting.device)
            for size, image in images.items():
                output = model.esvit(image)
                pairs = {"pooled": output.pooler_output, "region": output.last_hidden_state}
                for part, found in pairs.items():
                    findings.compare(f"{name} {attention} {size} {part}", found, golden[f"{size}.{part}"], FEATURES)
    check_losses(setting, findings)


def check_losses(setting: Setting, findings: Findings) -> None:
    """Compares the loss of the trajectory's first crops to that of the CPU, in float64 and float32."""
    torch.manual_seed(0)
    model = pretraining_model("golden_swin_w7", "eager").to(setting.device)
    crops = [group.to(setting.device) for group in golden_batch(0).groups]
    student, teacher = model(crops), model(crops[:1])
    layout = [(2, 49), (len(crops[1]) // 2, 9)]
    centers = {"view_center": model.view_center, "region_center": model.region_center}

    def total(move) -> torch.Tensor:
        moved = [type(each)({key: move(value) for key, value in each.items()}) for each in (student, teacher)]
        options = {name: move(center) for name, center in centers.items()}
        return esvit_loss(*moved, layout, **options, teacher_temp=0.04).loss

    expected = total(lambda tensor: tensor.double().cpu())
    findings.compare("loss in float32 beside float64", total(lambda tensor: tensor), expected, LOSSES)


def check_trajectory(setting: Setting, findings: Findings) -> None:
    """Repeats ten training steps of the original: losses, and the weights of both networks after five and ten."""
    run = begin(golden_options(setting.folder))
    golden = load("golden_trajectory")
    with safe_open(FIXTURES / "golden_trajectory.safetensors", "pt") as file:
        expected = json.loads(file.metadata()["loss_float64"])
    for step in range(10):
        loss = run.train_step([golden_batch(step)], step).values[0]["loss"].item()
        findings.check(f"loss of step {step}", abs(loss / expected[step] - 1), LOSSES)
        if step + 1 in (5, 10):
            compare_weights(run, f"step{step + 1}.", golden, findings)


def compare_weights(run: Pretraining, prefix: str, golden: dict[str, torch.Tensor], findings: Findings) -> None:
    """Checks the largest difference of a network's weights from the golden ones."""
    for network in ("student", "teacher"):
        state, furthest = getattr(run, network).state_dict(), 0.0
        start = f"{prefix}{network}."
        for name in (name.removeprefix(start) for name in golden if name.startswith(start)):
            expected = without_key_bias(name, golden[start + name])
            found = without_key_bias(name, state[next(iter(to_pretraining_keys({name: expected})))].cpu())
            furthest = max(furthest, (found - expected).abs().max().item())
        findings.check(f"weights of the {network} at {prefix[:-1]}", furthest, WEIGHTS)
