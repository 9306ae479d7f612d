# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Records what the checkpoints of a fine-tuning hold and are of, and finds the one to continue from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from modeling_esvit.storage.atomic import write_text
from modeling_esvit.storage.manifest import read_json, write_manifest
from training.state.checkpoint_folders import find_last_whole
from training.state.checkpoints import ResumeError


CHECKPOINT = "checkpoint-"  # how the Trainer names a checkpoint, before its step
CALL = "call.json"  # in a checkpoint: what the fine-tuning is of


class CheckpointRecorder(TrainerCallback):
    """Records what a checkpoint holds, as soon as all processes have written theirs: the Trainer writes it in place.

    Args:
        call: what the fine-tuning is of, as values of JSON by name.
    """

    def __init__(self, output: Path, call: Mapping[str, Any]) -> None:
        self.output, self.call = output, call

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            folder = self.output / f"{CHECKPOINT}{state.global_step}"
            write_text(folder / CALL, json.dumps(self.call, indent=2))
            write_manifest(folder)
        return control


def get_step(folder: Path) -> str:
    return folder.name.removeprefix(CHECKPOINT)


def list_checkpoints(output: Path) -> list[Path]:
    """Returns the checkpoints in a folder, the newest last."""
    folders = [folder for folder in output.glob(f"{CHECKPOINT}*") if get_step(folder).isdecimal()]
    return sorted(folders, key=lambda folder: int(get_step(folder)))


def require_new(output: Path) -> None:
    """Checks that no fine-tuning has checkpoints in the folder: of two, `--resume` would take the one with more steps.

    Raises:
        ResumeError: one has.
    """
    if found := list_checkpoints(output):
        raise ResumeError(
            f"{output} holds {found[-1].name} of an earlier fine-tuning: --resume continues it; otherwise name another "
            "--output."
        )


def find_checkpoint(output: Path, call: Mapping[str, Any]) -> str:
    """Returns the newest checkpoint that is as it was written, see `find_last_whole`.

    Raises:
        ResumeError: there is none, or it is of another call; those of earlier versions do not say of which.
    """
    newest = find_last_whole(list_checkpoints(output))
    if newest is None:
        raise ResumeError(f"{output} has no whole checkpoint to continue from; start again without --resume.")
    before = read_json(newest / CALL)
    if before is not None and (changed := [name for name, value in call.items() if before.get(name) != value]):
        raise ResumeError(
            f"{output} holds a fine-tuning with other {', '.join(changed)}. Repeat that command, or name another "
            "--output."
        )
    return str(newest)
