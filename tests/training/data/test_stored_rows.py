# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Which rows and shards a folder of data sets gives, and which error a mistake gets."""

import datasets
import pytest

from training.data.columns import DataNotFoundError, DataOptionError, EmptySourceError
from training.data.stored_rows import find_split_shards, list_shards, load_rows


@pytest.fixture
def rows():
    return datasets.Dataset.from_dict({"number": range(6)})


@pytest.fixture
def shards(rows, tmp_path):
    """Returns a folder with two shards of a split and one of another, in `data`, as the Hub has them."""
    (tmp_path / "data").mkdir()
    for name, kept in {"train-00000": range(4), "train-00001": range(4, 6), "test-00000": range(1)}.items():
        rows.select(kept).to_parquet(tmp_path / "data" / f"{name}.parquet")
    return tmp_path


def test_rows_of_a_split(shards):
    assert load_rows(str(shards))["number"][:] == list(range(6))
    assert load_rows(str(shards), split="test")["number"][:] == [0]
    assert load_rows(f"{shards}/data/train-*.parquet")["number"][:] == list(range(6))


def test_shards_of_a_split(shards):
    found, features = find_split_shards(str(shards), "test", None, None)
    assert [file.rsplit("/", 1)[1] for file in found] == ["test-00000.parquet"] and features is None
    assert len(find_split_shards(str(shards), None, None, None)[0]) == 2
    with pytest.raises(DataOptionError, match="no files of a split 'val'; it has .*train"):
        find_split_shards(str(shards), "val", None, None)
    with pytest.raises(DataOptionError, match="split 'test' does not apply to .*, which names all files"):
        find_split_shards(f"{shards}/data/*.parquet", "test", None, None)
    with pytest.raises(DataOptionError, match="config_name 'other' does not apply"):
        find_split_shards(f"{shards}/data/*.parquet", None, "other", None)


def test_a_shard_without_a_split_is_never_left_out_without_a_word(shards):
    (shards / "data" / "test-00000.parquet").rename(shards / "data" / "rest.parquet")
    with pytest.raises(DataOptionError, match="has 3 shards, of which 1 belong to no split: .*rest.parquet"):
        load_rows(str(shards))
    with pytest.raises(DataOptionError, match="1 belong to no split"):
        find_split_shards(str(shards), None, None, None)
    assert len(list_shards(shards)) == 3


def test_what_save_to_disk_wrote(rows, tmp_path):
    datasets.DatasetDict(train=rows, test=rows.select([5])).save_to_disk(tmp_path / "many")
    assert load_rows(str(tmp_path / "many"), split="test")["number"][:] == [5]
    with pytest.raises(DataOptionError, match="no split 'val'; it has .*train.*test"):
        load_rows(str(tmp_path / "many"), split="val")
    rows.select([]).save_to_disk(tmp_path / "empty")
    with pytest.raises(EmptySourceError, match="has no rows"):
        load_rows(str(tmp_path / "empty"))


def test_names_of_nothing():
    with pytest.raises(DataNotFoundError, match="'nowhere' does not exist"):
        load_rows("nowhere")
    with pytest.raises(DataNotFoundError, match="is no shard. Of a server or a store, parquet and tar files are read"):
        load_rows("https://example.org/images")
