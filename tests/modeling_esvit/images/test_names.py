# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how paths of any bytes, numbers of things and reasons are shown."""

import os

import pytest

from modeling_esvit.images.names import list_reasons, show_name, show_number, show_reasons


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


@pytest.mark.parametrize(
    "things, one",
    [
        ("hidden files", "1 hidden file"),
        ("images beside the files (read where rows name them)", "1 image beside the files (read where rows name it)"),
        (".js", "1 .js"),
        ("seg.png beside the images", "1 seg.png beside the images"),
        (".zip: unpack them", "1 .zip: unpack it"),
        ("processes", "1 process"),
        ("test classes", "1 test class"),
    ],
)
def test_one_thing_is_no_plural(things, one):
    assert show_number(1, things) == one
    assert show_number(0, things) == f"0 {things}" and show_number(2, things) == f"2 {things}"


def test_different_reasons_come_first():
    unreadable = {name: f"{name}: no '{name}'" for name in ("a", "b")} | {"c": "c: is HEIC"}
    assert list_reasons(unreadable, 2) == ["a: no 'a'", "c: is HEIC"]
    assert list_reasons(unreadable, 9) == ["a: no 'a'", "c: is HEIC", "b: no 'b'"]
    assert show_reasons(unreadable) == "a: no 'a'; c: is HEIC" and show_reasons({}) == ""
