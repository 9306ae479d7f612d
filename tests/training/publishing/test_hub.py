# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how errors of a push are explained."""

import errno
import json

import hf_xet
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


def test_an_error_of_the_store_is_no_error_of_the_disk():
    """datasets issue 7760, xet-core issue 404: the store of large files refuses a token that the Hub gave."""
    kind = getattr(hf_xet, "XetAuthenticationError", RuntimeError)  # older releases have no other
    refusal, failure = kind("CAS service error: 401"), RuntimeError("Data processing error: CAS: 503")
    for error in (refusal, failure, ConnectionError("Network error: 401 Unauthorized, xet-write-token")):
        found = explain(error, "ada/x")
        assert type(found) is PublishError and f"{type(error).__name__}: {error}" in str(found)
        assert "did not take them" in str(found) and "HF_HUB_DISABLE_XET=1" in str(found)


def test_the_error_behind_a_file_that_was_not_sent_is_explained():
    hidden = RuntimeError("Error while uploading 'model.safetensors' to the Hub.")
    hidden.__cause__ = TimeoutError("The write operation timed out")
    assert "cannot be reached, or cannot answer now (TimeoutError: The write op" in str(explain(hidden, "ada/x"))
    hidden.__cause__ = OSError(errno.EIO, "Input/output error", "x/model.safetensors")
    assert isinstance(explain(hidden, "ada/x"), UnreadableFolderError)
