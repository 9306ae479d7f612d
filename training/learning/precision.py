# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Chooses in which precision a run computes, and says who chose it.

    an option        --mixed_precision on the command line, or in a recipe
    the run itself   what a run that is continued began with
    the launcher     `accelerate launch --mixed_precision`, or what `accelerate config` has stored
    the device       bf16 where it multiplies matrices in it natively (GPU from Ampere, CPU with AMX or AVX-512 BF16)

The first of these that says something decides.
"""

import os
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object, is_bf16_available, parse_flag_from_env

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.precision import AUTO, has_amx, has_native_bfloat16
from training.options.pretrain_options import PretrainOptions
from training.state.checkpoints import read_saved_options


LAUNCHER = "ACCELERATE_MIXED_PRECISION"  # the variable that `accelerate launch` sets, whether it was told or not
USE_CPU = "ACCELERATE_USE_CPU"  # another one of its variables
NAMES = {"no": "fp32", "bf16": "bf16 autocast", "fp16": "fp16 autocast"}


class PrecisionError(EsViTError, ValueError):
    """Raised when this device cannot compute in the given precision."""


class Precision(NamedTuple):
    """Holds the precision of a run.

    Attributes:
        name: "no", "bf16" or "fp16", as `mixed_precision` has it.
        reason: Who chose it.
        is_kept: Whether a run that is continued began with it, and so has no other choice.
    """

    name: Any  # one of the option's values once it is checked; a launcher may say others
    reason: str
    is_kept: bool = False

    def describe(self, options: PretrainOptions, device: torch.device) -> str:
        """Says in a line how networks and other matrix products compute on the device."""
        return (
            f"{NAMES[self.name]} ({self.reason}); float32 matrix products: {choose_matmul_precision(options, device)}"
        )


def find_device() -> torch.device:
    """Returns the kind of device that a run on this machine takes: a CPU if `accelerate launch --cpu` says so."""
    if parse_flag_from_env(USE_CPU) or not torch.accelerator.is_available():
        return torch.device("cpu")
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def choose_precision(options: PretrainOptions) -> Precision:
    """Chooses the precision of a run; the same on every process of equal machines.

    Raises:
        ResumeError: The checkpoint that would be continued is damaged.
    """
    launcher, chosen = os.environ.get(LAUNCHER), options.mixed_precision
    if chosen != AUTO:
        return Precision(chosen, f"by an option{mention_other(launcher, chosen)}")
    saved = read_saved_options(options.output)
    if saved is not None:
        kept = saved["mixed_precision"]
        return Precision(kept, f"as the run began{mention_other(launcher, kept)}", is_kept=True)
    device = find_device()
    is_native = has_native_bfloat16(device)
    if launcher is not None:
        unused = f"; {device.type} computes bf16 natively: --mixed_precision bf16" if is_native else ""
        return Precision(launcher, f"by the launcher{unused if launcher == 'no' else ''}")
    return Precision(
        "bf16" if is_native else "no", f"auto: {device.type} {'has' if is_native else 'lacks'} native bf16"
    )


def mention_other(launcher: str | None, chosen: str) -> str:
    """Returns words on what the launcher says, if that is another precision than the one that is chosen."""
    return "" if launcher in (None, chosen) else f", not {launcher}, which the launcher says"


def check_precision(precision: Precision) -> None:
    """Checks that this machine can compute in the precision.

    Raises:
        PrecisionError: fp16 without a GPU, which Accelerate would silently run in fp32; bf16 on a GPU without it; or
            one of the launcher's that a run does not have.
    """
    if precision.name not in NAMES:
        raise PrecisionError(
            f"The launcher says mixed_precision {precision.name}; a run has {', '.join(NAMES)}. Give one of these as "
            "--mixed_precision, which goes before the launcher's."
        )
    if precision.name == "fp16" and find_device().type == "cpu":
        raise PrecisionError(f"fp16 needs a GPU; {advise(precision, 'on a CPU use --mixed_precision bf16 or no')}.")
    if precision.name == "bf16" and not is_bf16_available():
        advice = advise(precision, "use --mixed_precision fp16 or no")
        raise PrecisionError(f"This device cannot compute in bf16; {advice}.")


def check_agreement(precision: Precision) -> None:
    """Checks that all processes have chosen the same precision. All of them call it.

    Raises:
        PrecisionError: On all processes: their devices or launchers differ.
    """
    chosen = gather_object([f"{NAMES.get(precision.name, precision.name)} ({precision.reason})"])
    if len({name.partition(" (")[0] for name in chosen}) > 1:
        listed = ", ".join(f"process {number}: {name}" for number, name in enumerate(chosen))
        raise PrecisionError(f"The processes do not compute in one precision ({listed}). Give one --mixed_precision.")


def advise(precision: Precision, otherwise: str) -> str:
    """Returns what to do about a precision that this machine does not have."""
    if not precision.is_kept:
        return otherwise
    return "the run began with it, so continue it on such a device, or begin another run in another --output"


def choose_matmul_precision(options: PretrainOptions, device: torch.device) -> str:
    """Returns how float32 matrix products compute, by the names of `torch.set_float32_matmul_precision`.

    Under autocast those of the losses stay in float32, and need no more digits than the rest of the step: TF32 serves
    them on a GPU, factors in bfloat16 on a CPU with AMX, which adds up in float32.
    """
    if options.matmul_precision != AUTO:
        return options.matmul_precision
    if options.mixed_precision == "no":
        return "highest"
    if device.type == "cpu":
        return "medium" if has_amx() else "highest"
    return "high" if device.type == "cuda" else "highest"
