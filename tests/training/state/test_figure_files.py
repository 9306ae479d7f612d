# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a figure takes the place of a file as a whole, in the format of its suffix."""

import pytest
from matplotlib.figure import Figure

from training.state.figure_files import NAME_LENGTH, save_figure, shorten_name


def test_the_suffix_names_the_format(tmp_path):
    for name, start in (("x.png", b"\x89PNG"), ("x.pdf", b"%PDF")):
        save_figure(Figure(), tmp_path / "new" / name)
        assert (tmp_path / "new" / name).read_bytes().startswith(start)


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
