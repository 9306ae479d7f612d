# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Finds the checkpoints in a run's folder, `OUTPUT/checkpoints/step-00001234/`."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from modeling_esvit.storage.atomic import PARTIAL
from modeling_esvit.storage.manifest import find_damage


logger = logging.getLogger(__name__)

PROGRESS = Path("training_state", "progress.json")


def is_complete(folder: Path) -> bool:
    """Returns whether a checkpoint has its final name and the file that is written last."""
    return not folder.name.endswith(PARTIAL) and (folder / PROGRESS).is_file()


def list_checkpoints(root: Path) -> list[Path]:
    """Returns all checkpoints in the folder `checkpoints`, complete or not, oldest first."""
    return sorted(root.glob("step-*"))


def find_best(root: Path) -> str | None:
    """Returns the name of the checkpoint of the highest score; None before any was evaluated."""
    best = root / "best"
    return best.resolve().name if best.is_dir() else None


def find_newest_whole(folders: Iterable[Path], names: Iterable[str] | None = None) -> Path | None:
    """Returns the last of the complete checkpoints of a run that is whole, see `find_last_whole`."""
    return find_last_whole([folder for folder in folders if is_complete(folder)], names)


def find_last_whole(folders: Sequence[Path], names: Iterable[str] | None = None) -> Path | None:
    """Returns the last of folders whose files are as they were written; warns of each that it passes over.

    Args:
        names: Look at these files only.
    """
    for folder in reversed(folders):
        damage = find_damage(folder, names)
        if not damage:
            return folder
        logger.warning("The checkpoint %s is damaged and not used: %s.", folder, "; ".join(damage))
    return None
