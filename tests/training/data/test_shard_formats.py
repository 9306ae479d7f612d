# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that reading a shard leaves nothing to threads that a program knows nothing of."""

import threading
import weakref

import pyarrow as pa
import pyarrow.parquet as pq

from training.data.columns import ImageColumns
from training.data.shard_files import RangeReader, ShardFile
from training.data.shard_formats import ParquetShard


def test_a_row_group_is_read_by_the_calling_thread_alone(tmp_path, monkeypatch):
    """A thread of pyarrow's own that reads through Python would abort a program that ends meanwhile."""
    readers, threads = [], set()

    class Recorded(RangeReader):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            readers.append(weakref.ref(self))

        def read(self, size=-1):
            threads.add(threading.current_thread())
            return super().read(size)

    monkeypatch.setattr("training.data.shard_formats.RangeReader", Recorded)
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"image": [b"%d" % row * 5000 for row in range(300)]}), path, row_group_size=100)
    shard = ParquetShard(ShardFile.locate(str(path), 0))
    records = shard.read(100, 200, ImageColumns("image", None, None), shard.file)
    assert [record.image for record in records] == [b"%d" % row * 5000 for row in range(100, 200)]
    assert threads == {threading.current_thread()}
    assert len(readers) == 2 and [reader() for reader in readers] == [None, None]
