# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Chooses the type in which a model computes, by its name or by what the device is built for.

resolve_dtype("auto", "cuda:0")                      # bfloat16 on a GPU from Ampere on
has_native_bfloat16("cpu")                           # whether the CPU has matrix units (AMX)
"""

import argparse

import torch


DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
AUTO = "auto"


def has_native_bfloat16(device: torch.device | str) -> bool:
    """Returns whether a device has units that multiply matrices in bfloat16: a GPU from Ampere on, or a CPU with AMX.

    Devices that emulate the type, or of which torch does not say what they have, count as without.
    """
    device = torch.device(device)
    if device.type == "cuda":
        with torch.cuda.device(device):  # torch asks the current device only
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def resolve_dtype(name: str, device: torch.device | str) -> torch.dtype:
    """Returns the type of a name in DTYPES; for "auto", bfloat16 where `device` computes it natively, else float32."""
    if name != AUTO:
        return DTYPES[name]
    return torch.bfloat16 if has_native_bfloat16(device) else torch.float32


def name_dtype(dtype: torch.dtype) -> str:
    """Returns the name of a type, such as "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def add_dtype_argument(parser: argparse.ArgumentParser, default: str = AUTO) -> None:
    parser.add_argument(
        "--dtype",
        choices=[AUTO, *DTYPES],
        default=default,
        help="type of weights and images; auto is bfloat16 where the device computes it natively (GPU from Ampere, CPU "
        "with AMX), else float32 (default: %(default)s)",
    )
