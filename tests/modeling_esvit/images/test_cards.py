# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the card of a data set leads nowhere else, and that a damaged one is said in a line."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_esvit.embed.inputs import find_images
from modeling_esvit.images.cards import list_configurations, names_files
from modeling_esvit.images.data_errors import DataOptionError
from tests.helpers.shard_server import picture
from training.data.sources import open_source


def write_data(folder: Path, count: int = 2) -> Path:
    cells = [{"bytes": picture(number), "path": None} for number in range(count)]
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"image": cells}), folder / "train.parquet")
    return folder


def write_card(folder: Path, fields: str, file: str = "README.md") -> Path:
    (folder / file).write_text(f"---\n{fields}\n---\n" if file == "README.md" else fields)
    return folder


def refuse(data: Path) -> set[str]:
    """Returns the messages with which all programs refuse data."""
    messages = set()
    for open_it in (open_source, lambda name: open_source(name, streaming=True), find_images):
        with pytest.raises(DataOptionError) as refused:
            open_it(str(data))
        messages.add(str(refused.value))
    return messages


@pytest.mark.parametrize(
    "named",
    [
        *("data_files: {private}/*.parquet", "data_files: ../private/*.parquet", "data_dir: ../private"),
        *("data_files: file://{private}/train.parquet", "data_files: [train.parquet, 'http://127.0.0.1:9/x.parquet']"),
        *("data_files: [{{split: train, path: ['*/../../private/*']}}]", "data_files: zip://a::http://127.0.0.1:9/x"),
    ],
)
def test_a_card_names_files_of_its_folder_alone(named, tmp_path):
    write_data(tmp_path / "private", 7)
    card = f"configs:\n- config_name: default\n  {named}".format(private=tmp_path / "private")
    (message,) = refuse(write_card(write_data(tmp_path / "data"), card))
    assert "which is no file of that data set" in message and "name the files yourself" in message


def test_the_file_that_goes_before_a_card_is_one(tmp_path):
    write_data(tmp_path / "private", 7)
    card = "configs:\n- config_name: default\n  data_files: ../private/*.parquet"
    (message,) = refuse(write_card(write_data(tmp_path / "data"), card, ".huggingface.yaml"))
    assert "names ../private/*.parquet" in message


def test_a_card_that_names_its_own_files_is_followed(tmp_path):
    data = write_data(tmp_path / "data")
    write_data(data / "more", 3)
    card = f"configs:\n- config_name: default\n  data_files: [more/*.parquet, {data}/train.parquet]"
    write_card(data, card)
    assert names_files(list_configurations(data)) and len(find_images(str(data))) == len(open_source(data)) == 5


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("configs: [unclosed", "the card of .* is damaged: while parsing"),
        ("configs: 5", "its configs are no list of fields, but 5"),
        ("configs: [5]", r"its configs are no list of fields, but \[5\]"),
        ("dataset_info:\n  features:\n  - name: image\n    dtype: 17", "what describes .* is damaged"),
    ],
)
def test_a_damaged_card_is_said_in_a_line(fields, said, tmp_path):
    data = write_card(write_data(tmp_path / "data"), fields)
    for open_it in (open_source, find_images):
        with pytest.raises(Exception, match=said) as refused:
            open_it(str(data))
        assert "\n" not in str(refused.value)
