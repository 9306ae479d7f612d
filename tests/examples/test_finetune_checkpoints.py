# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which checkpoint a fine-tuning continues from, and that it mixes with no other one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from examples.finetune_checkpoints import CheckpointRecorder, find_checkpoint, require_new
from training.state.checkpoints import ResumeError


CALL = {"lr": 0.001, "seed": 0, "train": "83ab", "classes": ["a", "b"], "label_column": None}


def write_checkpoint(output: Path, step: int, call: dict[str, Any]) -> None:
    (output / f"checkpoint-{step}").mkdir()
    (output / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"moments")
    recorder: Any = CheckpointRecorder(output, call)
    recorder.on_save(None, SimpleNamespace(is_world_process_zero=True, global_step=step), None)


def test_a_fine_tuning_continues_from_a_whole_checkpoint(tmp_path, caplog):
    """The Trainer writes a checkpoint in place: a kill leaves half of one, and a disk may change one."""
    with pytest.raises(ResumeError, match="has no whole checkpoint to continue from"):
        find_checkpoint(tmp_path, CALL)
    write_checkpoint(tmp_path, 9, CALL)
    write_checkpoint(tmp_path, 10, CALL)
    (tmp_path / "checkpoint-11").mkdir()
    assert find_checkpoint(tmp_path, CALL) == str(tmp_path / "checkpoint-10")
    (tmp_path / "checkpoint-10" / "optimizer.pt").write_bytes(b"Moments")
    assert find_checkpoint(tmp_path, CALL) == str(tmp_path / "checkpoint-9")
    assert "checkpoint-11 is damaged and not used: it has no record" in caplog.text
    assert "checkpoint-10 is damaged and not used: optimizer.pt is not as it was written" in caplog.text


def test_a_fine_tuning_is_not_continued_as_another_one(tmp_path):
    """The Trainer takes other images, and the scheduler of the checkpoint, without a word."""
    write_checkpoint(tmp_path, 10, CALL)
    assert find_checkpoint(tmp_path, CALL) == str(tmp_path / "checkpoint-10")
    with pytest.raises(ResumeError, match="holds a fine-tuning with other lr, train. Repeat that command, or name"):
        find_checkpoint(tmp_path, CALL | {"lr": 0.1, "train": "00ff"})


def test_a_new_fine_tuning_has_a_folder_of_its_own(tmp_path):
    """`--resume` took the checkpoint with the most steps, and its accuracy for that of the newer one."""
    require_new(tmp_path / "none yet")
    (tmp_path / "checkpoint-notes").mkdir()
    require_new(tmp_path)
    write_checkpoint(tmp_path, 10, CALL)
    with pytest.raises(ResumeError, match="holds checkpoint-10 of an earlier fine-tuning: --resume continues it"):
        require_new(tmp_path)
