# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how paths of any bytes are shown."""

import os

import pytest

from modeling_esvit.images.names import has_ending, show_name


@pytest.mark.parametrize(
    "path, shown",
    [
        (b"a/b c.jpg", "a/b c.jpg"),
        ("Screenshot at 10.11.12\u202fPM é 猫.png".encode(), "Screenshot at 10.11.12\u202fPM é 猫.png"),
        (b"caf\xe9.jpg", r"caf\xe9.jpg"),
        (b"two\nlines\t\x1b[31m.jpg", r"two\nlines\t\x1b[31m.jpg"),
        (b"http://ada:p@w@h/a b.png?sig=s#f", "http://h/a b.png"),
        (b"zip://a?.png::HTTPS://ada:pw@h/b.zip?sig=s", "zip://a?.png::HTTPS://h/b.zip"),
        (b"zip://a.png::http://ada:p/w#x?y@h/b.zip", "zip://a.png::http://h/b.zip"),
        (b"s3://key:sec/ret@bucket/a?.png", "s3://bucket/a?.png"),
        ("line\u2028end.jpg".encode(), r"line\u2028end.jpg"),
    ],
)
def test_names_are_text(path, shown):
    assert show_name(os.fsdecode(path)) == shown
    assert shown.encode("utf-8").decode() == shown and len(shown.splitlines()) == 1


def test_endings_are_the_same_in_capitals():
    assert has_ending("A.TAR.GZ", (".tar.gz", ".tar.Z")) and has_ending("https://h/a.tar.z", (".tar.Z",))
    assert has_ending("a.Zip", ".zip") and not has_ending("a.zip.txt", ".zip")
