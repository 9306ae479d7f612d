# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which columns of a data set are its images and its labels."""

import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.images.decoding import Record
from training.data.columns import ROWS, ImageColumns, find_column


STRUCT = {"bytes": Value("binary"), "path": Value("string")}


@pytest.mark.parametrize(
    "features, found",
    [
        ({"picture": Image(), "kind": ClassLabel(names=["a", "b"])}, ("picture", "kind", ["a", "b"])),
        ({"picture": STRUCT, "label": Value("int8")}, ("picture", "label", None)),
        ({"picture": Image(), "label": Value("string"), "n": Value("int64")}, ("picture", "label", None)),
    ],
)
def test_the_only_candidates_are_taken(features, found):
    assert ImageColumns.find(Features(features), None, None)[:3] == found


@pytest.mark.parametrize(
    "image, label, message",
    [
        (
            None,
            None,
            r"image_column must be one of the columns left \(Image\), .*, n \(int64\).*; left and right holds images",
        ),
        ("middle", None, "image_column 'middle' does not exist; the columns are"),
        ("n", None, "image_column 'n' holds .*int64.*; each row must hold one Image"),
        ("left", "score", "label_column 'score' holds .*date32.*; labels are integers, ClassLabel .*: write it as"),
    ],
)
def test_columns_that_cannot_be_chosen_are_named(image, label, message):
    features = Features({"left": Image(), "right": Image(), "n": Value("int64"), "score": Value("date32")})
    with pytest.raises(DataOptionError, match=message):
        ImageColumns.find(features, image, label)


def test_strings_are_numbered_in_sorted_order():
    rows = Dataset.from_dict({"image": ["x", "y", None], "label": ["red", "blue", None]})
    columns = ImageColumns.find(rows.features, "image", None).number_names(rows["label"])
    assert columns.class_names == ["blue", "red"]
    records = [columns.record(row) for row in columns.select(rows)]
    assert records == [Record("x", 1, "x", ROWS), Record("y", 0, "y", ROWS), Record(b"", None, None, ROWS)]


def test_an_empty_string_is_no_label():
    columns = ImageColumns("image", "label", None, strings=True).number_names(["", "red", None])
    assert columns.class_names == ["red"] and [*map(columns.number_label, ("", "red", None))] == [None, 0, None]


def test_a_column_by_its_name():
    rows = Dataset.from_dict({"a": [1, 2]})
    assert find_column(rows, "a")[:] == [1, 2]
    with pytest.raises(DataOptionError, match="column 'b' does not exist"):
        find_column(rows, "b")


def test_booleans_are_classes_of_their_own():
    rows = Dataset.from_dict({"image": ["x", "y"], "label": [True, False]})
    columns = ImageColumns.find(rows.features, "image", None)
    assert columns.class_names == ["False", "True"] and [columns.number_label(each) for each in rows["label"]] == [1, 0]
