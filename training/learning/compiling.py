# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Chooses whether a run compiles its networks, augmentation and losses, and tries the compiler before it begins."""

from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils._triton import has_triton

from modeling_esvit.embed.compiling import AUTO, ON, CompileError, explain_failure
from training.options.pretrain_options import PretrainOptions


# Options of torch.compile. Sizes never change in a run; symbolic ones, which torch tries where student and teacher or
# two sizes of crops differ, can take more than half an hour.
STATIC: dict[str, Any] = {"dynamic": False}


def is_compiled(options: PretrainOptions, device: torch.device) -> bool:
    """Returns whether networks, augmentation and losses are compiled; by default where a GPU's compiler can be used."""
    if options.compile != AUTO:
        return options.compile == ON
    return device.type == "cuda" and has_triton()


def settle_compiling(options: PretrainOptions, accelerator: Accelerator) -> PretrainOptions:
    """Returns the options with "on" or "off" for `compile`, the same on all processes, which all call it.

    Raises:
        CompileError: On all processes: one cannot compile, though the option asks for it.
    """
    wanted = is_compiled(options, accelerator.device)
    answers = gather_object([(wanted, try_compiler(accelerator.device) if wanted else "")])
    fault = next((fault for _, fault in answers if fault), "")
    if fault and options.compile == ON:
        raise CompileError(f"{fault} Leave out --compile on.")
    if fault:
        accelerator.print(f"Does not compile: {fault}")
    everywhere = all(wanted for wanted, _ in answers) and not fault
    return replace(options, compile="on" if everywhere else "off")


def try_compiler(device: torch.device) -> str:
    """Returns why a small function cannot be compiled and called on the device; nothing if it can."""
    try:
        torch.compile(torch.square, **STATIC)(torch.ones(2, device=device))
    except RuntimeError as error:  # the nearest public base of what compilers raise
        return explain_failure("The networks", error)
    return ""
