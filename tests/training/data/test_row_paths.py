# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which files the rows of a parquet file may name."""

import pytest

from modeling_esvit.images.decoding import Record, UnreadableImageError, decode
from training.data.row_paths import find_folder, locate_image
from training.data.shard_files import ShardFile


def test_paths_belong_to_the_folder_and_lead_nowhere_else(tmp_path):
    folder = str(tmp_path / "data")
    for path in ("img/0.png", "./img/../img/0.png", f"{folder}/img/0.png"):
        assert locate_image(Record(path, 3, path), folder) == Record(f"{folder}/img/0.png", 3, path)
    for path in ("/etc/passwd", "../private.png", f"{folder}x/0.png"):
        with pytest.raises(UnreadableImageError, match="leads out of the folder"):
            decode(locate_image(Record(path, None, "row 0"), folder))
    with pytest.raises(UnreadableImageError, match="in a remote file"):
        decode(locate_image(Record("img/0.png", None, None), None))


def test_content_and_urls_stay_as_they_are():
    for image in (b"bytes", "https://host/a.png", "zip://a.png::b.zip"):
        assert locate_image(Record(image, 1, "x"), "/data") == Record(image, 1, "x")


def test_the_folder_of_a_shard():
    assert find_folder(ShardFile("/a/b.parquet", 1, 0)) == "/a"
    assert find_folder(ShardFile("https://host/b.parquet", 1, 0)) is None
