# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a figure takes the place of a file as a whole, in the format of its suffix."""

import pytest
from matplotlib.figure import Figure
from PIL import Image

from training.state.figure_files import DOTS, LONGEST, NAME_LENGTH, name_drawn, save_figure, shorten_name


def test_the_suffix_names_the_format(tmp_path):
    for name, start in (("x.png", b"\x89PNG"), ("x.pdf", b"%PDF")):
        save_figure(Figure(), tmp_path / "new" / name)
        assert (tmp_path / "new" / name).read_bytes().startswith(start)


def test_a_figure_is_no_longer_than_a_picture_can_be(tmp_path):
    save_figure(Figure(figsize=(0.2, 700)), tmp_path / "long.png")
    assert Image.open(tmp_path / "long.png").size == (0.2 * DOTS, LONGEST * DOTS)


def test_what_a_picture_does_not_show_is_counted(tmp_path):
    numbers = {"queries": 9, "images": 3}
    assert name_drawn(tmp_path, 9, numbers) == str(tmp_path)
    assert name_drawn(tmp_path, 3, numbers) == f"{tmp_path}: the first 3 of 9 queries"
    assert name_drawn(tmp_path, 2, numbers) == f"{tmp_path}: the first 2 of 9 queries and of 3 images"


class BreakingFigure(Figure):
    def savefig(self, path, **options):
        path.write_text("half")
        raise OSError("full")


def test_a_figure_that_breaks_off_leaves_the_old_file(tmp_path):
    (tmp_path / "x.png").write_text("old")
    with pytest.raises(OSError, match="full"):
        save_figure(BreakingFigure(), tmp_path / "x.png")
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"] and (tmp_path / "x.png").read_text() == "old"


def test_a_long_name_keeps_its_beginning_and_its_end():
    assert shorten_name("deep/folder/cat.png") == "cat.png"
    short = shorten_name("x/beginning-of-a-name-of-a-photograph-0042.png")
    assert short == "beginning-of…raph-0042.png" and len(short) == NAME_LENGTH
