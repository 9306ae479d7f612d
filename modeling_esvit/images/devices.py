# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks and opens the device that a command is told to compute on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from modeling_esvit.errors import EsViTError


if TYPE_CHECKING:
    from accelerate import PartialState


class DeviceError(EsViTError, ValueError):
    """Raised when a device does not exist here, or cannot hold numbers."""


def check_device(device: str | None) -> None:
    """Checks that something can be computed on a device.

    Args:
        device: the value of `--device`, None if it was not given.

    Raises:
        DeviceError: nothing can be computed there.
    """
    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # the latter of a torch that was built without the device
        raise DeviceError(f"--device {device} cannot be used: {str(error).splitlines()[0]}") from error


def open_device(device: str | None) -> PartialState:
    """Returns Accelerate's state of this process, for a program that computes on `device`.

    Raises:
        DeviceError: nothing can be computed there.
    """
    from accelerate import PartialState

    check_device(device)
    # Accelerate ignores torchrun's processes on a CPU unless told that there is nothing else.
    return PartialState(cpu=device == "cpu" or not torch.accelerator.is_available())
