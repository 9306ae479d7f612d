# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which images look wrong, of folders and of streams."""

import pytest
from datasets import Dataset
from PIL import Image

from tests.helpers.tiny_runs import write_images
from training.data.sample_check import describe_sample, sample_levels
from training.data.sources import open_source


def test_files_of_several_pages_are_named(tmp_path):
    pages = [Image.linear_gradient("L").rotate(angle) for angle in (0, 90)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    [line] = describe_sample(open_source(tmp_path), 0.01)
    assert line.startswith("Warning: 1 of 1 sampled images have several pages or frames, of which the first is read: ")
    assert line.endswith("stack.tif has 2.")


@pytest.mark.parametrize("kind", ["folder", "stream"])
def test_a_sample_is_measured(kind, tmp_path):
    folder = write_images(tmp_path / "images", 18)
    assert describe_sample(open_source(folder), 0.01) == []
    dark = Image.new("L", (40, 40))
    dark.paste(30, (0, 0, 8, 40))
    for name in ("a", "b"):
        dark.save(folder / f"{name}.png")
        (folder / f"{name}.jpg").write_bytes(b"broken")
    source = open_source(folder)
    if kind == "stream":
        content = [path.read_bytes() for path in sorted(folder.iterdir())]
        Dataset.from_dict({"image": content}).to_parquet(tmp_path / "images.parquet")
        source = open_source(str(tmp_path / "images.parquet"), image_column="image", streaming=True)
    lines = describe_sample(source, 0.01)
    assert lines[0].startswith("Warning: 2 of 22 sampled images are nearly black: ")
    assert lines[0].endswith(" has grey levels 0 .. 30 of 255, 6.0 on average.") and "--white_level" in lines[1]
    assert lines[2].startswith("Warning: 2 of 22 sampled images cannot be read: ") and len(lines) == 3
    levels, unreadable = sample_levels(source)
    assert len(levels) == 20 and len(unreadable) == 2


def test_more_unreadable_images_than_a_run_allows_are_foretold(tmp_path):
    folder = write_images(tmp_path / "images", 18)
    for name in "abcdef":
        (folder / f"{name}.jpg").write_bytes(b"broken")
    [line] = describe_sample(open_source(folder), 0.01)
    assert line.startswith("Warning: 6 of 24 sampled images cannot be read: ") and "max_unreadable" not in line
    [line] = describe_sample(open_source(folder), 0)
    assert "That may be 6 of all 24, and the run ends when it has met more than 0: " in line
    assert line.endswith("add --max_unreadable 0.5")
