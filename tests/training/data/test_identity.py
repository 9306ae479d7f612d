# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what tells data sources apart."""

import os
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

import modeling_esvit.storage.identity as storage_identity
import training.data.identity as data_identity
from tests.helpers.shard_server import write_parquet
from tests.helpers.tiny_runs import write_images
from training.data.identity import identify_source
from training.data.sources import FolderSource, open_source
from training.data.stream_opening import open_stream


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


STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def find_change(source, file, content):
    """Returns what is said of a source when a file that it reads has another content, and is then written back."""
    before, old = identify_source(source), file.read_bytes()
    file.write_bytes(content)
    change = before.describe_change(identify_source(source))
    file.write_bytes(old)
    return change


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "cells, kind",
    [
        ([{"bytes": None, "path": "0.jpg"}, {"bytes": None, "path": "1.jpg"}], STRUCT),
        ([{"bytes": b"held", "path": "0.jpg"}, {"bytes": None, "path": "1.jpg"}], STRUCT),
        ([{"bytes": b"held", "path": "0.jpg"}, {"bytes": b"", "path": "1.jpg"}], STRUCT),
        ([{"path": "0.jpg"}, {"path": "1.jpg"}], pa.struct({"path": pa.string()})),
        (["0.jpg", "1.jpg"], pa.string()),
    ],
)
def test_images_that_rows_name_belong_to_the_data(tmp_path, streaming, cells, kind):
    """They lie beside the parquet file, in whatever folder the program runs."""
    for name in ("0.jpg", "1.jpg"):
        (tmp_path / name).write_bytes(b"before")
    pq.write_table(pa.table({"image": pa.array(cells, kind)}), tmp_path / "train.parquet")
    source = open_source(tmp_path / "train.parquet", image_column="image", streaming=streaming)
    row = f"{tmp_path}/train.parquet, row 1" if streaming else "row 1"
    assert find_change(source, tmp_path / "1.jpg", b"after!") == f"{row} has another content"
    row = row if streaming else f"the file of {row}"
    assert find_change(source, tmp_path / "1.jpg", b"longer than before").startswith(f"{row} had 6 bytes and has 18")
    is_held = "held" in str(cells)
    assert (find_change(source, tmp_path / "0.jpg", b"after!") is None) == is_held


def test_rows_chosen_from_a_data_set_have_files_of_their_own(tmp_path):
    for name in ("0.jpg", "1.jpg"):
        (tmp_path / name).write_bytes(b"before")
    pq.write_table(pa.table({"image": pa.array([{"path": "0.jpg"}, {"path": "1.jpg"}])}), tmp_path / "train.parquet")
    source = open_source(tmp_path / "train.parquet").select([1])
    assert find_change(source, tmp_path / "0.jpg", b"after!") is None
    assert find_change(source, tmp_path / "1.jpg", b"after!") == "row 0 has another content"


def test_an_archive_that_rows_name_belongs_to_the_data(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("0.jpg", b"before")
    place = f"zip://0.jpg::{tmp_path}/a.zip"
    source = open_source(Dataset.from_dict({"image": [{"bytes": None, "path": place}]}))
    assert find_change(source, tmp_path / "a.zip", b"another").startswith("the file of row 0 had 114 bytes and has 7")


@pytest.mark.parametrize("streaming", [False, True])
def test_an_archive_that_many_rows_name_is_read_once(streaming, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for row in range(9):
            archive.writestr(f"{row}.png", bytes([row]))
    cells = [{"bytes": None, "path": f"zip://{row}.png::a.zip"} for row in range(9)]
    pq.write_table(pa.table({"image": pa.array(cells, STRUCT)}), tmp_path / "train.parquet")
    source, read = open_source(tmp_path / "train.parquet", streaming=streaming), []
    for module in (storage_identity, data_identity):
        monkeypatch.setattr(module, "compute_file_checksum", lambda path: read.append(path))
    assert identify_source(source).samples
    assert [os.path.basename(path) for path in read].count("a.zip") == 1
