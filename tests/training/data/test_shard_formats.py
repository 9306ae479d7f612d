# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that reading a shard leaves nothing to threads that a program knows nothing of."""

import os
import threading
import weakref
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.shard_server import serve, write_tar
from training.data.columns import ImageColumns
from training.data.shard_files import RangeReader, ShardError, ShardFile
from training.data.shard_formats import ParquetShard, open_tar
from training.data.stream_opening import open_stream


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


def test_a_column_may_have_a_dot_in_its_name(tmp_path):
    """Its row groups were counted as 0 bytes, so that large ones were read as a whole."""
    cells = [{"bytes": bytes([number]) * 9, "path": None} for number in range(4)]
    sizes = []
    for image in ("image", "image.jpg"):
        file = tmp_path / f"{image}.parquet"
        pq.write_table(pa.table({image: cells, "lab.el": [*"abab"], "other": cells}), file)
        stream = open_stream([str(file)], image_column=image, label_column="lab.el")
        assert [record.label for record in stream.rows(0, 4)] == [0, 1, 0, 1]
        sizes += ParquetShard(ShardFile.locate(str(file), 0)).count_bytes(stream.columns)
    assert sizes[0] == sizes[1] > 0


def test_a_large_row_group_is_read_in_slices(tmp_path, monkeypatch):
    """From any row on, in order, whole; no request is larger than a slice of it, and nothing is read too early."""
    for name, size in {"LARGE_GROUP": 300_000, "SLICE": 40_000, "SLICE_REQUEST": 20_000}.items():
        monkeypatch.setattr(f"training.data.shard_formats.{name}", size)
    monkeypatch.setattr("training.data.shard_stream.LARGE_GROUP", 300_000)
    requests = []

    class Recorded(RangeReader):
        def read(self, size=-1):
            requests.append(size)
            return super().read(size)

    monkeypatch.setattr("training.data.shard_formats.RangeReader", Recorded)
    images = [np.random.default_rng(row).bytes(2000) for row in range(400)]
    path = tmp_path / "train.parquet"
    pages = {"data_page_size": 8000, "write_batch_size": 4, "use_dictionary": False}
    pq.write_table(pa.table({"image": images}), path, row_group_size=200, **pages)
    source = open_stream([str(path)], image_column="image")
    requests.clear()
    records = source.rows(0, 400)
    first = next(records)
    assert first.image == images[0] and sum(requests) < 100_000
    assert [record.image for record in records] == images[1:]
    assert max(requests) <= 40_000
    assert [record.image for record in source.rows(150, 250)] == images[150:250]
    assert "of 2 row groups of up to 1 MB a slice of" in source.describe(100, 2)


def test_a_damaged_index_and_one_of_a_file_without_a_version(tmp_path, caplog):
    [path] = write_tar(tmp_path, [3])
    file = ShardFile.locate(path, 0)
    open_tar(file, None, None, tmp_path / "index")
    [index] = (tmp_path / "index").glob("train*")
    whole = index.read_text()
    index.write_text(whole.replace("00001", "00002"))
    assert len(open_tar(file, None, None, tmp_path / "index")) == 3 and index.read_text() == whole
    assert f"made anew: {index.name} is not as it was written" in caplog.text
    with serve(tmp_path) as server:
        server.tags = False
        unnamed = ShardFile.locate(server.url(os.path.basename(path)), 0)
        assert len(open_tar(unnamed, None, None, tmp_path / "index")) == 3
    assert [each.name for each in (tmp_path / "index").glob("train*")] == [index.name]


def test_an_index_is_not_used_for_another_tar_of_the_same_size_and_time(tmp_path):
    """As two archives that are written with a fixed time, or copied with `cp -p`."""
    [path] = write_tar(tmp_path, [3])
    before = os.stat(path)
    index = tmp_path / "index"
    assert open_tar(ShardFile.locate(path, 0), None, None, index).labels.tolist() == ["0", "1", "2"]
    content = Path(path).read_bytes()
    Path(path).write_bytes(content.replace(b"1" + bytes(511), b"7" + bytes(511)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert open_tar(ShardFile.locate(path, 0), None, None, index).labels.tolist() == ["0", "7", "2"]


def test_a_damaged_description_of_columns_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"image": [b"content"]})
    pq.write_table(table.replace_schema_metadata({"huggingface": '{"info": {"features"'}), path)
    with pytest.raises(ShardError, match="a.parquet is damaged where it describes its columns"):
        open_stream([str(path)])
    pq.write_table(table, path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"image", b"im\xffge"))
    with pytest.raises(ShardError, match="a.parquet is not a whole parquet file"):
        open_stream([str(path)])


def test_row_groups_that_do_not_add_up_are_named(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [b"content"] * 5}), path, write_statistics=False)
    data = path.read_bytes()
    number_of_rows = b"\x16\x0a"  # 5, as Thrift writes it; first of the file, then of its group
    start = data.index(number_of_rows, len(data) - 8 - int.from_bytes(data[-8:-4], "little"))
    path.write_bytes(data[:start] + b"\x16\x1a" + data[start + 2 :])
    with pytest.raises(ShardError, match="a.parquet is not a whole .*: its row groups have 5 rows, and the file 13"):
        open_stream([str(path)])
