# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that what clones and downloads leave in place of a file is known by its first bytes."""

import pytest

from modeling_esvit.storage.contents import describe_stand_in


@pytest.mark.parametrize(
    "head, what",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"/annex/objects/SHA256E-s9--0.jpg\n", "git annex get"),
        (b"\n  <!DOCTYPE html>", "a web page"),
        (b"", "there is no content"),
    ],
)
def test_a_stand_in_is_known(head, what):
    assert what in describe_stand_in(head)


def test_nothing_is_said_of_other_content():
    assert describe_stand_in(b"PAR1") == describe_stand_in(b"version 2") == ""


@pytest.mark.parametrize("length", [0x3C20, 0x3C])  # of the names in a file of safetensors
def test_weights_are_no_web_page(length):
    assert describe_stand_in(length.to_bytes(8, "little") + b'{"a":{"dtype":"F32"') == ""
