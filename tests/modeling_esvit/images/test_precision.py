# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""`modeling_esvit.images.precision`: what "auto" means on each kind of device, as torch describes the device."""

import contextlib

import pytest
import torch

from modeling_esvit.images.precision import DTYPES, has_native_bfloat16, name_dtype, resolve_dtype


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_tile": True, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),  # AMD from Zen 4 on
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, torch.float32),
        ({"neon": True, "bf16": True}, torch.float32),  # ARM, where nothing was measured
    ],
)
def test_a_cpu_is_asked_for_its_instructions(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_dtype("auto", "cpu") == expected
    assert has_native_bfloat16("cpu") is (expected is torch.bfloat16)


@pytest.mark.parametrize("supported", [True, False])
def test_a_gpu_is_asked_by_its_number_and_without_emulation(monkeypatch, supported):
    asked = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext(asked.append(device)))
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or supported
    )
    assert resolve_dtype("auto", "cuda:1") == (torch.bfloat16 if supported else torch.float32)
    assert asked == [torch.device("cuda:1")]


@pytest.mark.parametrize("device", ["mps", "xpu", "meta"])
def test_other_devices_compute_in_float32(device):
    assert resolve_dtype("auto", device) == torch.float32


@pytest.mark.parametrize("name", DTYPES)
def test_a_name_is_obeyed_on_every_device(monkeypatch, name):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert name_dtype(resolve_dtype(name, "cpu")) == name
