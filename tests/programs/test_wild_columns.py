# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Columns of images as strangers have them, through the commands that a user types.

What each test stands for was reported by users of other projects; the comments name the reports.
"""

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_esvit.embed.command import main as embed
from modeling_esvit.embed.files import load_features
from modeling_esvit.embed.inputs import NoImagesError, find_images
from tests.helpers.shard_server import picture
from tests.helpers.tiny_runs import write_model
from tests.helpers.wild_data import count_images, pretrain, refuse, write_rows
from training.data.sources import open_source


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def make_table(kind: str, count: int = 4) -> pa.Table:
    images, paths = [picture(index) for index in range(count)], [f"img/{index}.png" for index in range(count)]
    both = pa.struct({"bytes": pa.large_binary(), "path": pa.large_string(), "width": pa.int64()})
    rows = {
        "paths": [{"bytes": None, "path": path} for path in paths],
        "path alone": [{"path": path} for path in paths],
        "bytes alone": [{"bytes": image} for image in images],
        "strings": paths,
        "large": pa.array([{"bytes": image, "path": None, "width": 12} for image in images], both),
        "large_binary": pa.array(images, pa.large_binary()),
        "binary_view": pa.array(images, pa.binary_view()),
    }
    return pa.table({"photo": rows[kind]})


@pytest.mark.parametrize("streaming", ["", "--streaming"])
@pytest.mark.parametrize(
    "kind", ["paths", "path alone", "bytes alone", "strings", "large", "large_binary", "binary_view"]
)
def test_columns_of_images(kind, streaming, tmp_path, monkeypatch):
    """Paths are beside the file, wherever the command runs; structs have more fields or fewer."""
    (tmp_path / "data" / "img").mkdir(parents=True)
    for index in range(4):
        (tmp_path / "data" / "img" / f"{index}.png").write_bytes(picture(index))
    pq.write_table(make_table(kind), tmp_path / "data" / "a.parquet")
    column = "--image_column photo" if kind in ("strings", "large_binary", "binary_view") else ""
    changes = f"--max_unreadable 0 {column} {streaming}"
    pretrain(tmp_path / "data" / "a.parquet", tmp_path / "run", changes)


@pytest.mark.parametrize("streaming", ["", "--streaming"])
def test_an_empty_row_group_is_no_end(streaming, tmp_path):
    table = make_table("bytes alone")
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        for part in (table.slice(0, 0), table, table.slice(0, 0), table):
            writer.write_table(part)
    pretrain(tmp_path / "a.parquet", tmp_path / "run", streaming)
    assert count_images(tmp_path / "run") == 8


ODD = {
    "a map": {"meta": pa.array([[("a", 1)]] * 2, pa.map_(pa.string(), pa.int64()))},
    "a categorical": {"label": pa.array(["x", "y"]).dictionary_encode()},
}


@pytest.mark.parametrize("kind", ODD)
def test_columns_beside_the_images_do_not_matter_to_a_stream(kind, tmp_path):
    """datasets issue 5706, pull 6892: types that `datasets` does not know, or did not know."""
    images = [{"bytes": picture(index), "path": None} for index in range(2)]
    pq.write_table(pa.table({"image": images, **ODD[kind]}), tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet", streaming=True)
    assert len(source) == 2 and source.class_names == (["x", "y"] if kind == "a categorical" else None)


def test_a_type_of_another_datasets_hides_no_other_column(tmp_path):
    """A newer `datasets` has types for scans and documents, and writes their names into the file."""
    features = {"image": {"_type": "Image"}, "label": {"names": ["x", "y"], "_type": "ClassLabel"}}
    declared = json.dumps({"info": {"features": {**features, "scan": {"_type": "Hologram"}}}})
    images = [{"bytes": picture(index), "path": None} for index in range(2)]
    table = pa.table({"image": images, "label": [0, 1], "scan": ["a", "b"]})
    pq.write_table(table.replace_schema_metadata({"huggingface": declared}), tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet", streaming=True)
    assert len(source) == 2 and source.class_names == ["x", "y"]


def test_a_first_shard_without_labels_does_not_hide_those_of_others(tmp_path):
    """datasets issue 7222: the types of all files were those of the first one, which had nulls alone."""
    write_rows(tmp_path / "a.parquet", [None, None], pa.null())
    write_rows(tmp_path / "b.parquet", ["x", "y"], pa.string())
    source = open_source(f"{tmp_path}/*.parquet", streaming=True)
    assert [record.label for record in source.rows(0, 4)] == [None, None, 0, 1]


def test_lists_of_images_are_refused_with_what_to_do(tmp_path):
    """Roblox/FAI-RL pull 81: rows of several images were all dropped."""
    pq.write_table(pa.table({"images": [[{"bytes": picture(0), "path": None}]] * 2}), tmp_path / "a.parquet")
    for streaming in ("", "--streaming"):
        message = refuse(tmp_path / "a.parquet", tmp_path / "run", streaming)
        assert "images holds lists of images: write a row for each image" in message
    with pytest.raises(NoImagesError, match="images holds lists of images: write a row for each image"):
        find_images(tmp_path / "a.parquet")


def test_embed_reads_parquet_files_by_name(model, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for name in ("a", "b"):
        write_rows(tmp_path / f"{name}.parquet", [0, 1], pa.int64())
    for data, count in ((tmp_path / "a.parquet", 2), (tmp_path / "*.parquet", 4)):
        embed([str(model), str(data), "--output", str(tmp_path / "features.npz"), "--overwrite"])
        assert len(load_features(tmp_path / "features.npz").names) == count
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(SystemExit, match="error: .*b.parquet is not a whole parquet file: Parquet magic bytes"):
        embed([str(model), str(tmp_path / "*.parquet"), "--output", str(tmp_path / "other.npz")])


def test_errors_list_the_columns_with_their_types(tmp_path):
    pq.write_table(pa.table({"n": [1], "image": [{"bytes": b"", "path": "a"}], "score": [0.5]}), tmp_path / "a.parquet")
    message = refuse(tmp_path / "a.parquet", tmp_path / "run", "--image_column photo")
    assert "'photo' does not exist" in message
    assert "the columns are n (int64), image (struct of bytes, path), score (float64)" in message
