# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Which rows and shards a folder of data sets gives, and which error a mistake gets."""

from functools import partial

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.data_errors import DataNotFoundError, DataOptionError, EmptySourceError
from modeling_esvit.images.shards import list_shards
from training.data.shard_files import RangeReader
from training.data.sources import open_source
from training.data.stored_rows import find_split_shards, load_rows
from training.evaluation.class_names import ClassNameError, number_classes


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


def test_the_columns_of_a_file_are_read_once(shards, monkeypatch):
    """For the check of its labels and for its features; `datasets` reads them itself, of an open file."""
    opened = []

    def count(read, file, **options):
        opened.append(file._file.url if isinstance(file, RangeReader) else file)
        return read(file, **options)

    monkeypatch.setattr(pq, "read_metadata", partial(count, pq.read_metadata))
    monkeypatch.setattr(pq, "read_schema", partial(count, pq.read_schema))
    for data, expected in ((shards, 3), (shards / "data" / "train-*.parquet", 2)):
        load_rows(str(data))
        ours = [file for file in opened if isinstance(file, str)]
        assert len(ours) == len(set(ours)) == expected
        opened.clear()


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


HELD, NULLS = pa.binary(), pa.null()
FIRST = {
    "null paths": pa.array([{"bytes": b"a", "path": None}], pa.struct({"bytes": HELD, "path": NULLS})),
    "null bytes": pa.array([{"bytes": None, "path": "a"}], pa.struct({"bytes": NULLS, "path": pa.string()})),
    "no paths": pa.array([{"bytes": b"a"}], pa.struct({"bytes": HELD})),
    "no bytes": pa.array([{"path": "a"}], pa.struct({"path": pa.string()})),
}


@pytest.mark.parametrize("is_declared", [False, True])
@pytest.mark.parametrize("kind", FIRST)
def test_the_first_file_need_not_have_all_that_others_have(kind, is_declared, tmp_path):
    """Neither fields nor columns nor values: `datasets` gives the types of the first file to all."""
    pq.write_table(pa.table({"image": FIRST[kind], "label": pa.array([None], NULLS)}), tmp_path / "0.parquet")
    features = datasets.Features(
        image=datasets.Image(decode=False), label=datasets.Value("string"), n=datasets.Value("int64")
    )
    last = {"image": {"bytes": b"b", "path": "c"}, "label": "dog", "n": 3}
    table = datasets.Dataset.from_list([last], features=features).data.table
    pq.write_table(table if is_declared else table.replace_schema_metadata(None), tmp_path / "1.parquet")
    first = {"image": {"bytes": None, "path": None, **FIRST[kind].to_pylist()[0]}, "label": None, "n": None}
    for data in (f"{tmp_path}/*.parquet", str(tmp_path)):
        found = load_rows(data)
        found = found.cast_column("image", datasets.Image(decode=False)) if is_declared else found
        assert [*found] == [first, last]


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


def test_booleans_beside_integers_as_labels_are_refused(tmp_path):
    for name, labels in {"0": pa.array([True, False]), "1": pa.array([1, 7])}.items():
        images = pa.array([{"bytes": b"a", "path": None}] * 2)
        pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / f"train-{name}.parquet")
    for streaming in (False, True):
        with pytest.raises(EsViTError, match="train-1.parquet holds Value.*int64.*, and that of other shards booleans"):
            open_source(tmp_path, streaming=streaming)
    found = [open_source(f"{tmp_path}/train-{name}.parquet") for name in "01"]
    with pytest.raises(ClassNameError, match="'False', 'True'.* numbers without names"):
        number_classes([each.class_names for each in found])
