# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what is said of files beside the images of a source."""

from tests.helpers.tiny_runs import write_images
from training.data.left_out import warn_of_left_out
from training.data.sources import open_source


def test_other_files_are_counted_by_kind(tmp_path, caplog):
    folder = write_images(tmp_path / "images", 2)
    warn_of_left_out("images", open_source(folder))
    assert caplog.text == ""
    for name in ("a.heic", "b.heic", "c.txt"):
        (folder / name).touch()
    warn_of_left_out("images", open_source(folder))
    assert "Not read in images: 2 .heic: pip install pillow-heif; 1 .txt." in caplog.text
