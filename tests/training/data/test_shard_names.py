# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the ways to name shards."""

import itertools

import pytest

from modeling_esvit.images.data_errors import DataNotFoundError, DataOptionError
from modeling_esvit.images.decoding import decode
from tests.helpers.shard_server import serve
from tests.helpers.streams import WRITE
from training.data.shard_files import ShardError
from training.data.shard_names import expand_braces, shorten_names
from training.data.sources import open_source
from training.data.stream_opening import open_stream


@pytest.fixture(params=["parquet", "tar"])
def kind(request):
    return request.param


def test_every_way_to_name_shards(kind, tmp_path):
    WRITE[kind](tmp_path, [5, 4])
    with serve(tmp_path) as server:
        for data in (
            tmp_path,
            f"{tmp_path}/*.{kind}",
            f"{tmp_path}/train-00000.{kind}",
            server.url(f"train-00000.{kind}"),
        ):
            source = open_source(data, streaming=True)
            number = 5 if "00000" in str(data) else 9
            records = list(itertools.islice(source.rank_items(0, 0, 0, number, 0), number))
            assert sorted(record.label for record in records) == list(range(number))
            assert all(decode(record).size == (12, 12) for record in records)
    with pytest.raises(DataOptionError, match="val.*train"):
        open_source(tmp_path, streaming=True, split="val")


def test_braces(kind, tmp_path):
    assert expand_braces("a-{08..11}-{x,y}") == [
        f"a-{number}-{word}" for number in ("08", "09", "10", "11") for word in "xy"
    ]
    assert expand_braces("a{b}") == ["a{b}"]
    WRITE[kind](tmp_path, [5, 4, 3])
    with serve(tmp_path) as server:
        ranges = f"train-{{00000..00002}}.{kind}"
        words = f"{{{server.url(f'train-00000.{kind}')},{tmp_path}/train-00001.{kind}}}"
        for data, number in ((server.url(ranges), 12), (f"{tmp_path}/{ranges}", 12), (words, 9)):
            assert len(open_source(data, streaming=True)) == number
        with pytest.raises(ShardError, match="train-00003"):
            open_source(server.url(f"train-{{00002..00003}}.{kind}"), streaming=True)
    with pytest.raises(DataNotFoundError, match="no file matches .*train-00003"):
        open_source(f"{tmp_path}/train-{{00002..00003}}.{kind}", streaming=True)
    with pytest.raises(DataOptionError, match="names .*train-00001.* twice"):
        open_source(f"{tmp_path}/train-0000{{1,*}}.{kind}", streaming=True)


def test_shards_of_one_name_are_told_apart():
    """webdataset issue 471: files of several folders often have the same names."""
    assert shorten_names(["/d/a-0.tar", "/e/a-1.tar"]) == ["a-0.tar", "a-1.tar"]
    assert shorten_names(["https://h/d/x1/0.tar", "https://h/d/x2/0.tar"]) == ["x1/0.tar", "x2/0.tar"]
    assert shorten_names(["d/0.tar", "d/e/0.tar", "d/1.tar"]) == ["d/0.tar", "d/e/0.tar", "d/1.tar"]


def test_other_files_cannot_be_streamed(tmp_path):
    (tmp_path / "train.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataOptionError, match="train.csv.*shards are .parquet files"):
        open_stream([str(tmp_path / "train.csv")])
