# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The device that a command is told to compute on."""

import torch

from modeling_esvit.errors import EsViTError


class DeviceError(EsViTError, ValueError):
    """There is no such device here, or it holds no numbers."""


def check_device(device: str | None) -> None:
    """Args:
        device: the value of `--device`, None if it was not given.

    Raises:
        DeviceError: nothing can be computed there.
    """
    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:  # the latter of a torch that was built without the device
        raise DeviceError(f"--device {device} cannot be used: {str(error).splitlines()[0]}") from error
