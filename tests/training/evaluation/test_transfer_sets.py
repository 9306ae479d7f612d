# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the table of data sets of the transfer evaluation, and how each is opened."""

import pytest
from datasets import ClassLabel, Dataset, Features, Sequence, Value

import training.evaluation.transfer_metrics as transfer_metrics
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.data_errors import DataOptionError
from training.evaluation.transfer_sets import (
    TABLE,
    TransferSet,
    TransferTableError,
    classify_failure,
    make_class_targets,
    make_set,
    open_split,
    read_table,
    select_middle_rows,
)


def test_table_of_the_paper():
    table = read_table(TABLE)
    assert len(table) == 18
    metrics = [each.metric for each in table.values()]
    assert [metrics.count(name) for name in transfer_metrics.METRICS] == [12, 4, 1, 1]
    assert all(each.classes and each.sizes and each.label for each in table.values())


def test_tables_that_cannot_be(tmp_path):
    for values, message in (
        ({"train": "a:train"}, "needs the fields train and test"),
        ({"train": "a:train", "test": "a:test", "colour": 1}, "colour"),
        ({"train": "a:train", "test": "a:test", "metric": "f1"}, "'f1' is not one of accuracy"),
        ({"train": "a:x", "test": "a:y", "metric": "map_11_point", "tune_per_class": 1}, "tune_per_class"),
    ):
        with pytest.raises(TransferTableError, match=message):
            make_set("mine", values)
    with pytest.raises(DataOptionError, match="the same data"):
        make_set("mine", {"train": "org/a:train", "test": "org/a:train"})
    for content, message in (
        (b"- a\n", "must map"),
        (b"a: [b\n", "is not valid YAML"),
        (b"a: \xff", "is not valid YAML"),
    ):
        (tmp_path / "table.yaml").write_bytes(content)
        with pytest.raises(EsViTError, match=message):
            read_table(tmp_path / "table.yaml")


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("train", 2012, "a text"),
        ("test", None, "a text"),
        ("config", 2012, "a text"),
        ("classes", "ten", "a whole number"),
        ("tune_per_class", 0, "a whole number"),
        ("sizes", 100, "a list of two whole numbers"),
        ("sizes", [100], "a list of two whole numbers"),
        ("middle_of", "video", "a list of texts"),
    ],
)
def test_a_field_of_another_type_is_named(field, value, wanted):
    values = {"train": "a:train", "test": "a:test", field: value}
    with pytest.raises(TransferTableError, match=f"mine: the field {field} must be {wanted}"):
        make_set("mine", values)


def test_lists_of_classes():
    def targets(lists, feature):
        return make_class_targets(Dataset.from_dict({"c": lists}, features=Features({"c": Sequence(feature)})), "c")

    found, names = targets([[2], [], [0, 2]], ClassLabel(names=["a", "b", "c"]))
    assert found.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 1]] and names == ["a", "b", "c"]
    assert targets([["cat", "dog"], ["cat"]], Value("string"))[0].tolist() == [[1, 1], [1, 0]]
    assert targets([[1], [3, 0]], Value("int64"))[0].tolist() == [[0, 1, 0, 0], [1, 0, 0, 1]]
    assert targets([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]], Value("float32"))[0].tolist() == [[0, 1, 1], [0, 0, 0]]
    for wrong in ([[-1, 1], [0, 1]], [[0.5, 1.0]]):
        with pytest.raises(DataOptionError, match="class numbers, or of 0 and 1"):
            targets(wrong, Value("float32"))
    with pytest.raises(DataOptionError, match="has the class 1000000000, and each number up to it"):
        targets([[10**9]], Value("int64"))
    with pytest.raises(DataOptionError, match="does not exist"):
        make_class_targets(Dataset.from_dict({"c": [[1]]}), "classes")
    with pytest.raises(DataOptionError, match="a list for each image"):
        make_class_targets(Dataset.from_dict({"c": [1]}), "c")


def test_middle_of_each_clip():
    rows = Dataset.from_dict({"video": [1, 1, 1, 2, 1, 2], "clip": [1, 1, 1, 1, 2, 1], "frame": [0, 1, 2, 0, 0, 1]})
    assert select_middle_rows(rows, ("video", "clip"))["frame"][:] == [1, 1, 0]


def test_shards_of_the_hub_that_cannot_be_reached_are_missing(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    each = TransferSet("voc", "hf://datasets/no/such@main/train*.parquet", "hf://datasets/no/such@main/test*.parquet")
    with pytest.raises(OSError) as met:
        open_split(each, each.train)
    assert classify_failure(met.value) == "missing"


def test_all_files_of_a_split_have_labels_of_one_kind(tmp_path):
    """Also where the column has another name than `label`."""
    for name, labels in {"0": ["cat"], "1": [0]}.items():
        rows = {"image": [{"bytes": b"a", "path": None}], "kind": labels, "clip": [name]}
        Dataset.from_dict(rows).to_parquet(tmp_path / f"train-{name}.parquet")
    entry = TransferSet("own", f"{tmp_path}:train", f"{tmp_path}:test", label="kind", middle_of=("clip",))
    with pytest.raises(EsViTError, match="'kind' of .*train-1.parquet holds Value.*int64.* other shards strings"):
        open_split(entry, entry.train)
