# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Saves matplotlib figures, and shortens the names that they show."""

from __future__ import annotations  # who only saves a figure need not import matplotlib

from pathlib import Path
from typing import TYPE_CHECKING

from modeling_esvit.storage.atomic import replace_file


if TYPE_CHECKING:
    from matplotlib.figure import Figure


NAME_LENGTH = 26  # characters that fit below a picture


def save_figure(figure: Figure, output: Path) -> None:
    """Replaces the file `output` by the figure, in the format that its suffix names."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(output) as partial:
        figure.savefig(partial, dpi=100, format=output.suffix[1:])


def shorten_name(name: str) -> str:
    """Returns the last part of a path, and of a long one its beginning and its end, NAME_LENGTH characters in all."""
    last, half = name.rstrip("/").rpartition("/")[2], NAME_LENGTH // 2
    return last if len(last) <= NAME_LENGTH else f"{last[: half - 1]}…{last[-half:]}"
