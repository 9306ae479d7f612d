# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Pictures as files: with its final name, one is whole."""

from __future__ import annotations  # who only saves a figure need not import matplotlib

import os
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, output: Path) -> None:
    """Writes `output`, in the format of its suffix, under a temporary name and renames it when it is complete."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{os.getpid()}-{output.name}")
    try:
        figure.savefig(partial, dpi=100)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
