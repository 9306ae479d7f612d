# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that shards that are missing are counted, wherever they are listed."""

from pathlib import Path

import pyarrow as pa
import pytest

from modeling_esvit.embed.inputs import find_images
from modeling_esvit.images.shards import count_missing
from tests.helpers.shard_server import write_members
from tests.helpers.wild_data import write_rows
from training.data.sources import open_source


def write(folder: Path, name: str) -> None:
    """Writes a shard of an image."""
    if name.endswith(".tar"):
        write_members(folder / name, {"0.png": b"an image"})
    else:
        write_rows(folder / name, [0], pa.int64())


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_shards_that_a_download_did_not_bring_are_counted(kind, tmp_path):
    """Each of the Hub's older files has a hash of its own behind the number."""
    (tmp_path / "data").mkdir()
    for number in (0, 2):
        write(tmp_path / "data", f"train-{number:05d}-of-00004-{number}b.{kind}")
    write(tmp_path / "data", f"test-00000-of-00001.{kind}")
    for data in (tmp_path, f"{tmp_path}/data/train*.{kind}"):
        found = [open_source(data), open_source(data, streaming=True)]
        found += [find_images(str(data))] if kind == "parquet" else []
        described = {images.left_out.describe() for images in found}
        assert described == {"2 shards missing or not named (the names of others say -of-N)"}


def test_numbers_in_names():
    assert count_missing(["a-1-of-3.tar", "a-2-of-3.tar", "b-0-of-3.tar", "of-3.tar", "c-0-of-1.tar"]) == 3
    assert count_missing(["one/a-0-of-2.tar", "two/a-1-of-2.tar", "a-0-of-1-of-1.tar"]) == 2
