# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how data are named."""

from training.data.named_data import split_data_name


def test_names_of_splits(tmp_path):
    assert split_data_name("org/name:test") == ("org/name", "test")
    assert split_data_name("https://host:80/a.tar") == ("https://host:80/a.tar", None)
    assert split_data_name("hf://datasets/org/name/*.parquet") == ("hf://datasets/org/name/*.parquet", None)
    assert split_data_name(str(tmp_path)) == (str(tmp_path), None)
    drives = ("C:\\photographs\\*.parquet", "d:/photographs")  # of Windows, where evaluation works, too
    assert [split_data_name(drive) for drive in drives] == [(drive, None) for drive in drives]
    assert split_data_name("C:\\photographs:test") == ("C:\\photographs", "test")
