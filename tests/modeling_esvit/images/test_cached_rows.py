# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that rows are those of the files at a path, where `datasets` would give those of others from its cache."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from modeling_esvit.embed.inputs import find_images
from modeling_esvit.images.decoding import decode
from tests.helpers.shard_server import picture


IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def write_shard(file: Path, *numbers: int) -> None:
    """Writes a shard of these pictures, all at the same time."""
    file.parent.mkdir(exist_ok=True)
    cells = [{"bytes": picture(number), "path": None} for number in numbers]
    pq.write_table(pa.table({"image": pa.array(cells, IMAGE)}), file)
    os.utime(file, ns=(10**18, 10**18))


def read_all(folder: Path) -> list[bytes]:
    images = find_images([str(folder)])
    return [decode(images.read(row)).tobytes() for row in range(len(images))]


def test_another_shard_of_the_same_name_and_time_is_read(tmp_path):
    found = []
    for numbers in ((0, 1), (1, 0)):
        write_shard(tmp_path / "rows" / "a.parquet", *numbers)
        found.append(read_all(tmp_path / "rows"))
    assert found[0] == found[1][::-1] and found[0] != found[1]


def test_files_that_were_there_before_are_read_in_place_of_others(tmp_path):
    """A folder is renamed, and none of its files changed after the first rows were cached."""
    place, found = tmp_path / "rows", []
    write_shard(tmp_path / "first" / "a.parquet", 0, 1)
    write_shard(tmp_path / "second" / "a.parquet", 1, 0)
    for name in ("first", "second"):
        (tmp_path / name).rename(place)
        found.append(read_all(place))
        place.rename(tmp_path / f"{name} again")
    assert found[0] == found[1][::-1] and found[0] != found[1]
