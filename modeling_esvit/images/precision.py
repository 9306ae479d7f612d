# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Chooses the type in which a model computes, by its name or by what the device is built for.

resolve_dtype("auto", "cuda:0")                      # bfloat16 on a GPU from Ampere on
has_native_bfloat16("cpu")                           # whether the CPU multiplies matrices in it (AMX or AVX-512 BF16)
"""

import argparse

import torch

from modeling_esvit.errors import require_choice


# What torch calls the instructions with which an x86 CPU multiplies in bfloat16 at least as fast as in float32.
CPU_INSTRUCTIONS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16"}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
AUTO = "auto"


def has_native_bfloat16(device: torch.device | str) -> bool:
    """Returns whether a device has instructions that multiply in bfloat16, as a GPU from Ampere on has.

    Of CPUs those count that have one of `CPU_INSTRUCTIONS`: there features take about half of the time of float32.
    Devices that emulate the type, or of which torch does not say what they have, count as without.
    """
    device = torch.device(device)
    if device.type == "cuda":
        with torch.cuda.device(device):  # torch asks the current device only
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(list_cpu_instructions())


def list_cpu_instructions() -> list[str]:
    """Returns which of `CPU_INSTRUCTIONS` this machine's CPU has, by their usual names."""
    found = torch.cpu.get_capabilities()
    return [name for capability, name in CPU_INSTRUCTIONS.items() if found.get(capability, False)]


def has_amx() -> bool:
    """Returns whether this machine's CPU has units that multiply matrices."""
    return CPU_INSTRUCTIONS["amx_bf16"] in list_cpu_instructions()


def resolve_dtype(name: str, device: torch.device | str) -> torch.dtype:
    """Returns the type of a name in DTYPES; for "auto", bfloat16 where `device` computes it natively, else float32.

    Raises:
        ChoiceError: there is no such name.
    """
    require_choice("dtype", name, [AUTO, *DTYPES])
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
        "with AMX or AVX-512 BF16), else float32 (default: %(default)s)",
    )
