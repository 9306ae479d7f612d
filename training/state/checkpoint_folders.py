# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the checkpoints in a run's folder, `OUTPUT_DIR/checkpoints/step-00001234/`."""

from pathlib import Path

from modeling_esvit.storage.atomic import PARTIAL


PROGRESS = Path("training_state", "progress.json")


def is_complete(folder: Path) -> bool:
    """Returns whether a checkpoint has its final name and the file that is written last."""
    return not folder.name.endswith(PARTIAL) and (folder / PROGRESS).is_file()


def list_checkpoints(root: Path) -> list[Path]:
    """Returns all checkpoints in the folder `checkpoints`, complete or not, oldest first."""
    return sorted(root.glob("step-*"))
