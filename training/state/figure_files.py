# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Saves matplotlib figures, within the size that a picture can have, and names what they show."""

from __future__ import annotations  # who only saves a figure need not import matplotlib

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from modeling_esvit.storage.atomic import replace_file


if TYPE_CHECKING:
    from matplotlib.figure import Figure


NAME_LENGTH = 26  # characters that fit below a picture
DRAWN = 20  # images in a column or a row of a picture; programs say of how many
DOTS = 100  # pixels an inch
LONGEST = 200  # inches of a side; matplotlib refuses pictures of 2^16 pixels


def save_figure(figure: Figure, output: Path) -> None:
    """Replaces the file `output` by the figure, in the format that its suffix names, with sides up to LONGEST."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(min(width, LONGEST), min(height, LONGEST))
    output.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(output) as partial:
        figure.savefig(partial, dpi=DOTS, format=output.suffix[1:])


def name_drawn(output: Path, most: int, numbers: Mapping[str, int]) -> str:
    """Returns the name of a picture, and how many things there are of which it shows only the first `most`."""
    cut = [f"of {number} {things}" for things, number in numbers.items() if number > most]
    return f"{output}: the first {most} {' and '.join(cut)}" if cut else str(output)


def shorten_name(name: str) -> str:
    """Returns the last part of a path, and of a long one its beginning and its end, NAME_LENGTH characters in all."""
    last, half = name.rstrip("/").rpartition("/")[2], NAME_LENGTH // 2
    return last if len(last) <= NAME_LENGTH else f"{last[: half - 1]}…{last[-half:]}"
