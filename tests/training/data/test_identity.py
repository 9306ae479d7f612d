# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what tells data sources apart."""

from datasets import Dataset

from tests.helpers.shard_server import write_parquet
from tests.helpers.tiny_runs import write_images
from training.data.identity import identify_source
from training.data.shard_stream import open_stream
from training.data.sources import FolderSource, open_source


def test_a_folder_is_known_by_its_paths(tmp_path):
    first = identify_source(FolderSource(write_images(tmp_path / "a", 3)))
    assert first["images"] == 3 and identify_source(FolderSource(write_images(tmp_path / "b", 3))) == first
    (tmp_path / "b" / "00.png").rename(tmp_path / "b" / "x.png")
    assert identify_source(FolderSource(tmp_path / "b")) != first


def test_a_stream_is_known_by_its_shards(tmp_path):
    write_parquet(tmp_path, [2, 3])
    files = sorted(map(str, tmp_path.iterdir()))
    found = identify_source(open_stream(files))
    assert found["images"] == 5 and found["commit"] is None
    assert [shard[0] for shard in found["shards"].values()] == [2, 3]
    assert [shard[1] for shard in found["shards"].values()] == [(tmp_path / file).stat().st_size for file in files]


def test_a_data_set_in_memory_is_known_by_its_length():
    assert identify_source(open_source(Dataset.from_dict({"image": [b"", b""]}), image_column="image")) == {"images": 2}
