# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks names of repositories on the Hub."""

import pytest

from training.options.errors import OptionError
from training.options.hub_names import check_repo_id, is_hub_name, make_repo_name


@pytest.mark.parametrize(
    "text, is_name", [("ada/birds", True), ("a.b-c/d_e", True), ("birds", False), ("a/b/c", False)]
)
def test_the_form_of_a_name(text, is_name):
    assert is_hub_name(text) is is_name


@pytest.mark.parametrize(
    "repo_id, reason", [("birds", "is no full name"), ("a/b/c", "is no name"), ("a/--", "is no name")]
)
def test_names_that_cannot_be(repo_id, reason):
    check_repo_id("ada/birds")
    with pytest.raises(OptionError, match=f"'{repo_id}' {reason} on the Hub"):
        check_repo_id(repo_id)


@pytest.mark.parametrize(
    "folder, name",
    [
        ("swin.tiny_7", "swin.tiny_7"),
        ('my run\'s "x"', "my-run-s-x"),
        ("a--b..c.git", "a-b-c"),
        ("größe", "gr-e"),
        ("...", "NAME"),
        ("x" * 200, "x" * 64),
    ],
)
def test_the_name_of_a_folder_becomes_one_that_the_hub_takes(folder, name):
    assert make_repo_name(folder) == name
    check_repo_id(f"USER/{name}")
