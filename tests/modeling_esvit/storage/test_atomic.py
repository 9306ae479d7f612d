# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that files, folders and links are replaced whole or not at all."""

import os
import shutil
import stat

import pytest
import torch
from safetensors.torch import save_file

from modeling_esvit.storage.atomic import append_text, replace_file, replace_folder, replace_link, write_text
from modeling_esvit.storage.manifest import MANIFEST, ForeignFilesError, mark_unfinished, remove_folder
from tests.helpers.full_disk import largest_file


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, shared):
    path = tmp_path / "log.txt"
    for text in ("older", "ä\n"):
        write_text(path, text, shared=shared)
    with pytest.raises(ValueError, match="half"), replace_file(path, shared=shared) as partial:
        partial.write_text("hal")
        raise ValueError("half")
    assert path.read_bytes() == "ä\n".encode() and list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_not_replaced_by_one(tmp_path):
    """`--output /dev/null` of somebody who is root made a file of it, for all programs of the machine."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    (tmp_path / "here").symlink_to(tmp_path / "pipe")
    before = {path: path.lstat().st_ino for path in tmp_path.iterdir()}
    for path in before:
        with pytest.raises(ForeignFilesError, match=f"{path.name} is a device or a pipe, which a file would replace"):
            write_text(path, "new")
    assert {path: path.lstat().st_ino for path in tmp_path.iterdir()} == before


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


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600)])
def test_weights_can_be_read_by_whom_the_umask_allows(tmp_path, umask, mode):
    """safetensors writes its files for their owner alone."""
    before = os.umask(umask)
    try:
        with replace_folder(tmp_path / "model") as folder:
            save_file({"a": torch.ones(2)}, folder / "model.safetensors")
        with replace_file(tmp_path / "features.safetensors") as partial:
            save_file({"a": torch.ones(2)}, partial)
    finally:
        os.umask(before)
    for path in (tmp_path / "model" / "model.safetensors", tmp_path / "features.safetensors"):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_link_is_relative(tmp_path):
    for name in ("step-1", "step-2"):
        (tmp_path / name).mkdir()
        replace_link(tmp_path / "last", tmp_path / name)
    assert (tmp_path / "last").readlink().as_posix() == "step-2"


def test_a_text_is_added_whole_or_not_at_all(tmp_path):
    path = tmp_path / "log.jsonl"
    for line in ("one\n", "zwölf\n"):
        append_text(path, line)
    failed = pytest.raises(OSError, match="No space left on device|File too large")
    with failed, largest_file(path.stat().st_size + 3):
        append_text(path, "three\n")
    assert path.read_text(encoding="utf-8") == "one\nzwölf\n"


def test_what_breaks_off_a_removal_leaves_the_record(tmp_path, monkeypatch):
    """A kill, or a file that is open elsewhere: the next call knows that the rest is ours."""
    with replace_folder(tmp_path / "folder") as folder:
        (folder / "student").mkdir()
        (folder / "student" / "weights").touch()

    def remove_in_part(path) -> None:
        (path / MANIFEST).unlink(missing_ok=True)  # which may come first in the order of the disk
        raise OSError("busy")

    with monkeypatch.context() as broken, pytest.raises(OSError, match="busy"):
        broken.setattr(shutil, "rmtree", remove_in_part)
        remove_folder(tmp_path / "folder")
    remove_folder(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
