# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how errors of a push are explained."""

import errno
import json

import pytest

from training.publishing.hub import PublishError, UnreadableFolderError, explain


def test_an_error_of_the_disk_is_no_fault_of_the_network():
    """Opening a file names it in the error, reading it does not."""
    for name in ("x/model.safetensors", None):
        with pytest.raises(UnreadableFolderError, match=f"cannot be read here: .*Input/output error.*{name or ''}"):
            raise explain(OSError(errno.EIO, "Input/output error", name), "ada/x")
    refused, slow = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), TimeoutError("timed out")
    with pytest.raises(PublishError, match="The Hub refused the push to ada/x: Invalid metadata in README.md"):
        raise explain(ValueError("Invalid metadata in README.md."), "ada/x")
    for error in (refused, slow, json.JSONDecodeError("Expecting value", "<html>log in to this network", 0)):
        with pytest.raises(PublishError, match=f"cannot be reached, or cannot answer now .{type(error).__name__}: "):
            raise explain(error, "ada/x")
