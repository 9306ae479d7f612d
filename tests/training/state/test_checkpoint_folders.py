# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which folders are complete checkpoints."""

import shutil

import pytest

from modeling_esvit.storage.atomic import replace_folder
from training.state.checkpoint_folders import PROGRESS, find_newest_whole, is_complete, list_checkpoints


def test_only_the_last_file_under_the_final_name_makes_a_checkpoint(tmp_path):
    for name in ("step-00000010", "step-00000002", "step-00000011.partial", "last"):
        (tmp_path / name / PROGRESS).parent.mkdir(parents=True)
    for name in ("step-00000010", "step-00000011.partial"):
        (tmp_path / name / PROGRESS).write_text("{}")
    found = list_checkpoints(tmp_path)
    assert [path.name for path in found] == ["step-00000002", "step-00000010", "step-00000011.partial"]
    assert [is_complete(path) for path in found] == [False, True, False]


@pytest.mark.parametrize("backwards", [False, True])
def test_a_part_of_a_checkpoint_under_its_final_name_is_passed_over(tmp_path, caplog, backwards):
    """Where a folder is renamed file by file, as in a mounted bucket, a run may be killed between any two of them."""
    for step in (1, 2):
        with replace_folder(tmp_path / f"step-0000000{step}") as folder:
            (folder / PROGRESS).parent.mkdir()
            for name in ("student.safetensors", "random.json", PROGRESS):
                (folder / name).write_text(f"{name} {step}")
    older, newer = list_checkpoints(tmp_path)
    files = sorted((path for path in newer.rglob("*") if path.is_file()), reverse=backwards)
    for number in range(len(files)):
        bucket = tmp_path / f"bucket-{number}"
        shutil.copytree(older, bucket / older.name)
        for path in files[:number]:
            (bucket / path.relative_to(tmp_path)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, bucket / path.relative_to(tmp_path))
        assert find_newest_whole(list_checkpoints(bucket)) == bucket / older.name
    assert find_newest_whole(list_checkpoints(tmp_path)) == newer
