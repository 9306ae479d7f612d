# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a device that is not there is named."""

import pytest

from modeling_esvit.images.devices import DeviceError, open_device


def test_a_device_that_is_not_there():
    for device in ("tpu9", "cuda:99", "meta"):
        with pytest.raises(DeviceError, match=f"--device {device} cannot be used"):
            open_device(device)
