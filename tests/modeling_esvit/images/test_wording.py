# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how numbers of things and reasons are said."""

import pytest

from modeling_esvit.images.wording import list_reasons, show_number, show_reasons


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


def test_a_long_reason_is_shown_without_its_middle():
    name = "a" * 10**6 + "z"
    for shown in (show_reasons({name: f"{name}: no file"}), *list_reasons({name: f"{name}: no file"}, 1)):
        assert shown == "a" * 250 + " ... " + "a" * 240 + "z: no file"
