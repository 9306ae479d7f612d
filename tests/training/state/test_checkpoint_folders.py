# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which folders are complete checkpoints."""

from training.state.checkpoint_folders import PROGRESS, is_complete, list_checkpoints


def test_only_the_last_file_under_the_final_name_makes_a_checkpoint(tmp_path):
    for name in ("step-00000010", "step-00000002", "step-00000011.partial", "last"):
        (tmp_path / name / PROGRESS).parent.mkdir(parents=True)
    for name in ("step-00000010", "step-00000011.partial"):
        (tmp_path / name / PROGRESS).write_text("{}")
    found = list_checkpoints(tmp_path)
    assert [path.name for path in found] == ["step-00000002", "step-00000010", "step-00000011.partial"]
    assert [is_complete(path) for path in found] == [False, True, False]
