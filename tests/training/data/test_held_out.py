# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which images are held out for testing: a share of each class, by names alone."""

import shutil
import unicodedata

import datasets
import pytest

from modeling_esvit.images.data_errors import DataOptionError
from tests.helpers.shard_server import write_parquet
from training.data.held_out import hold_out
from training.data.sources import DatasetSource, open_source


def write_files(folder, **counts):
    """Writes empty files, which are images by their names, into a subfolder for each class."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}é.png").touch()
    return folder


def test_a_share_of_each_class_is_held_out_and_single_images_train(tmp_path):
    source = open_source(write_files(tmp_path, a=10, b=4, alone=1, two=2))
    train, test, share, alone = hold_out("x", source, 0.2)
    assert [path.split("/")[0] for path in test.list_names()] == ["a", "a", "b", "two"] and share == 0.2
    assert sorted(train.list_names() + test.list_names()) == source.list_names()
    assert train.class_names == test.class_names == ["a", "alone", "b", "two"] and alone == ["alone"]
    for part in (train, test):  # numbers of classes stay those of the whole
        assert [part.class_names[part.read(item).label] for item in range(len(part))] == [
            name.split("/")[0] for name in part.list_names()
        ]
    described = hold_out("x", source, 0.2).describe()
    assert described == (
        "holds out 4 of 17 images, 20% of each class, for testing; none of the classes with a single image: alone"
    )
    assert len(hold_out("x", source, 0.99).train) == 4  # one of each class stays


def test_the_choice_depends_on_names_alone(tmp_path):
    first = write_files(tmp_path / "first", a=10, b=5)
    chosen = hold_out("x", open_source(first), 0.4).test.list_names()
    assert chosen == hold_out("another", open_source(first), 0.4).test.list_names()
    shutil.copytree(first, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*.png"):  # as a Mac writes names
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))
    copied = hold_out("x", open_source(tmp_path / "copy"), 0.4).test.list_names()
    assert [unicodedata.normalize("NFC", name) for name in copied] == chosen
    shutil.rmtree(first / "b")  # another class changes nothing
    assert hold_out("x", open_source(first), 0.4).test.list_names() == [name for name in chosen if name[0] == "a"]


def test_rows_keep_their_numbers_and_classes():
    rows = {"image": [{"bytes": b"x", "path": None}] * 9, "label": ["b", "a", "b"] * 3}
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("string"))
    source = DatasetSource(datasets.Dataset.from_dict(rows, features=features))
    train, test, _, _ = hold_out("x", source, 0.34)
    assert (len(train), len(test)) == (6, 3) and train.class_names == test.class_names == ["a", "b"]
    for part in (train, test):
        records = [part.read(item) for item in range(len(part))]
        assert [record.name for record in records] == part.list_names()
        assert [record.label for record in records] == [int(int(name[4:]) % 3 != 1) for name in part.list_names()]
    assert sorted([*train.rows, *test.rows]) == list(range(9))
    again = hold_out("x", train, 0.5).test  # of a part, too, the numbers are those of the whole
    assert set(again.list_names()) < set(train.list_names())


def test_what_has_nothing_to_hold_out_says_what_to_do(tmp_path):
    (tmp_path / "shards").mkdir()
    write_parquet(tmp_path / "shards", [4], size=8)
    with pytest.raises(DataOptionError, match="'x' is read as a stream .* Name test data, such as other shards"):
        hold_out("x", open_source(tmp_path / "shards", streaming=True), 0.2)
    with pytest.raises(DataOptionError, match="each class of 'x' has a single image"):
        hold_out("x", open_source(write_files(tmp_path / "single", a=1, b=1)), 0.2)
    with pytest.raises(DataOptionError, match="classes of 'x' are called test and train, as splits are.* x:train and"):
        hold_out("x", open_source(write_files(tmp_path / "splits", train=3, test=2)), 0.2)
    with pytest.raises(DataOptionError, match="'x' has no labels.* 2 of 2 images of .* lie in no subfolder, such as "):
        hold_out("x", open_source(write_files(tmp_path / "flat", a=2) / "a"), 0.2)
