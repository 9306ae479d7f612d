# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that of two calls that write one file or folder at the same time, one is whole and the other says so."""

import os

import pytest

from modeling_esvit.storage.atomic import replace_file, replace_folder
from modeling_esvit.storage.locks import InUseError, lock
from modeling_esvit.storage.manifest import find_damage


def test_a_folder_that_another_call_writes_is_left_to_it(tmp_path):
    with replace_folder(tmp_path / "x") as first:
        (first / "a").write_text("first")
        with pytest.raises(InUseError, match="^Another process is writing .*/x at this moment"):
            with replace_folder(tmp_path / "x"):
                pass
        (first / "b").write_text("first")
    assert sorted(os.listdir(tmp_path)) == ["x"] and not find_damage(tmp_path / "x")
    assert sorted(os.listdir(tmp_path / "x")) == [".manifest.json", "a", "b"]


def test_a_file_that_another_call_writes_is_left_to_it(tmp_path):
    with replace_file(tmp_path / "x") as first:
        first.write_text("first")
        with pytest.raises(InUseError, match="^Another process is writing .*/x at this moment"):
            with replace_file(tmp_path / "x"):
                pass
    assert os.listdir(tmp_path) == ["x"] and (tmp_path / "x").read_text() == "first"


def test_what_another_call_removed_before_it_was_locked_is_said(tmp_path, monkeypatch):
    (tmp_path / "x").touch()
    monkeypatch.setattr("modeling_esvit.storage.locks.take", lambda descriptor, final: (tmp_path / "x").unlink())
    with pytest.raises(InUseError), lock(tmp_path / "x", tmp_path / "x"):
        pass
    with pytest.raises(InUseError), lock(tmp_path / "gone", tmp_path / "x"):
        pass


def test_what_a_kill_left_is_not_locked(tmp_path):
    (tmp_path / "x.partial").mkdir()
    with replace_folder(tmp_path / "x") as folder:
        (folder / "a").touch()
    assert os.listdir(tmp_path) == ["x"]
