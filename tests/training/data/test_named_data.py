# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how data are named."""

import os

import pytest

from modeling_esvit.images.data_errors import DataOptionError
from tests.helpers.tiny_runs import write_images
from training.data.named_data import (
    open_train_and_test,
    refuse_output_in_data,
    split_data_name,
    split_train_and_test,
)


def test_names_of_splits(tmp_path):
    assert split_data_name("org/name:test") == ("org/name", "test")
    assert split_data_name("https://host:80/a.tar") == ("https://host:80/a.tar", None)
    assert split_data_name("hf://datasets/org/name/*.parquet") == ("hf://datasets/org/name/*.parquet", None)
    assert split_data_name(str(tmp_path)) == (str(tmp_path), None)
    drives = ("C:\\photographs\\*.parquet", "d:/photographs")  # of Windows, where evaluation works, too
    assert [split_data_name(drive) for drive in drives] == [(drive, None) for drive in drives]
    assert split_data_name("C:\\photographs:test") == ("C:\\photographs", "test")


def test_training_and_test_data_share_no_image(tmp_path):
    for name in ("train/a", "test/a", "train/b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "0.png").touch()
    os.symlink(tmp_path, tmp_path.parent / "link")
    train, test = f"{tmp_path}:train", f"{tmp_path}:test"
    assert split_train_and_test(train, test) == [(str(tmp_path), "train"), (str(tmp_path), "test")]
    assert split_train_and_test("org/a", "org/b") == [("org/a", None), ("org/b", None)]
    for one, other in (
        (str(tmp_path), str(tmp_path)),
        (str(tmp_path), f"{tmp_path}/"),
        (str(tmp_path), f"{tmp_path.parent}/link"),
        (str(tmp_path), test),
        ("org/a", "org/a"),
        ("org/a:test", "org/a:test"),
    ):
        with pytest.raises(DataOptionError, match="are the same data: name a split.*a split is a subfolder"):
            split_train_and_test(one, other)
    for one, other in ((str(tmp_path), f"{tmp_path}/test"), (f"{tmp_path}/train/a", train)):
        with pytest.raises(DataOptionError, match="share images.* lies in"):
            split_train_and_test(one, other)


def test_an_output_among_the_images_is_refused(tmp_path, monkeypatch):
    """A run in its own folder of images read its curves.png as one of them, and could not be continued."""
    images = write_images(tmp_path / "images", 4, classes="ab")
    os.symlink(images, tmp_path / "link")
    monkeypatch.chdir(images)
    for output, data in (
        ("run", "."),
        (images, str(images)),
        (images / "r.json", f"{tmp_path}:images"),
        (tmp_path / "link" / "a" / "run", f"{images}:a"),
    ):
        with pytest.raises(DataOptionError, match="lies in .*, whose images are read.* Name an output beside"):
            refuse_output_in_data(output, None, "org/name", data)
    refuse_output_in_data(images / ".runs" / "mine", str(images))  # hidden, so not read
    refuse_output_in_data(images / "run", f"{images}:a", "org/name", "s3://bucket/*.tar")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "0.tar").touch()
    refuse_output_in_data(tmp_path / "shards" / "run", str(tmp_path / "shards"))  # pictures are no shards


def test_without_test_data_a_share_is_held_out_and_said(tmp_path, capsys):
    images = write_images(tmp_path / "images", 10, classes="ab")
    train, test = open_train_and_test(str(images), None)
    assert (len(train), len(test)) == (8, 2)
    assert capsys.readouterr().out == f"{images}: holds out 2 of 10 images, 20% of each class, for testing.\n"
    train, test = open_train_and_test(str(images.parent) + ":images", None, test_share=0.4)
    assert (len(train), len(test)) == (6, 4)
