# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what tells data sources apart."""

import os

from datasets import Dataset

from tests.helpers.shard_server import write_parquet
from tests.helpers.tiny_runs import write_images
from training.data.identity import identify_source
from training.data.shard_stream import open_stream
from training.data.sources import FolderSource, open_source


def test_a_folder_is_known_by_its_files_wherever_it_lies(tmp_path):
    first = identify_source(FolderSource(write_images(tmp_path / "a", 3)))
    assert first.images == 3
    assert first.describe_change(identify_source(FolderSource(write_images(tmp_path / "b", 3)))) is None
    (tmp_path / "b" / "00.png").rename(tmp_path / "b" / "x.png")
    changed = first.describe_change(identify_source(FolderSource(tmp_path / "b")))
    assert changed == "00.png is missing; x.png is new"


def test_a_stream_is_known_by_its_shards(tmp_path):
    write_parquet(tmp_path, [2, 3])
    files = sorted(map(str, tmp_path.iterdir()))
    found = identify_source(open_stream(files))
    assert found.images == 5 and found.commit is None
    assert [state.size for state in found.files.values()] == [os.stat(file).st_size for file in files]
    os.utime(files[1], ns=(5, 5))
    assert found.describe_change(identify_source(open_stream(files))) is None
    assert found.describe_times(identify_source(open_stream(files))) == f"1 of 2 files, {files[1]} to begin with"
    assert str(found.describe_change(identify_source(open_stream(files[:1])))).endswith(f"{files[1]} is missing")
    content = (tmp_path / files[1]).read_bytes()
    (tmp_path / files[1]).write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    try:
        changed = found.describe_change(identify_source(open_stream(files)))
    finally:
        (tmp_path / files[1]).write_bytes(content)
    assert changed == f"{files[1]} has another content"


def test_a_data_set_in_memory_is_known_by_its_rows():
    sources = [open_source(Dataset.from_dict({"image": [b"", each]}), image_column="image") for each in (b"", b"x")]
    first, second = map(identify_source, sources)
    assert first.images == 2 and first.describe_change(second) is not None
