# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that files, folders and links are replaced whole or not at all."""

import pytest

from modeling_esvit.storage.atomic import replace_file, replace_folder, replace_link, write_text
from modeling_esvit.storage.manifest import MANIFEST, mark_unfinished


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, shared):
    path = tmp_path / "log.txt"
    for text in ("older", "ä\n"):
        write_text(path, text, shared=shared)
    with pytest.raises(ValueError, match="half"), replace_file(path, shared=shared) as partial:
        partial.write_text("hal")
        raise ValueError("half")
    assert path.read_bytes() == "ä\n".encode() and list(tmp_path.iterdir()) == [path]


def test_what_a_kill_left_is_overwritten(tmp_path):
    (tmp_path / "log.txt.partial").write_text("of a process that was killed")
    (tmp_path / "folder.partial").mkdir()
    mark_unfinished(tmp_path / "folder.partial")
    (tmp_path / "folder.partial" / "half").touch()
    write_text(tmp_path / "log.txt", "new")
    with replace_folder(tmp_path / "folder") as folder:
        (folder / "whole").touch()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        *("folder", f"folder/{MANIFEST}", "folder/whole", "log.txt")
    ]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    for name in ("old", "new"):
        with replace_folder(tmp_path / "a" / "folder") as folder:
            (folder / name).touch()
    with pytest.raises(ValueError, match="half"), replace_folder(tmp_path / "a" / "folder") as folder:
        (folder / "newest").touch()
        raise ValueError("half")
    with pytest.raises(ValueError, match="half"), replace_folder(tmp_path / "b" / "c" / "folder") as folder:
        raise ValueError("half")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [MANIFEST, "a", "folder", "new"]


def test_a_link_is_relative(tmp_path):
    for name in ("step-1", "step-2"):
        (tmp_path / name).mkdir()
        replace_link(tmp_path / "last", tmp_path / name)
    assert (tmp_path / "last").readlink().as_posix() == "step-2"
