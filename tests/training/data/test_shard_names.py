# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the ways to name shards."""

import itertools

import pytest

from modeling_esvit.errors import EsViTError
from modeling_esvit.images import http_client
from modeling_esvit.images.data_errors import DataNotFoundError, DataOptionError
from modeling_esvit.images.decoding import decode
from tests.helpers.shard_server import serve
from tests.helpers.streams import WRITE
from training.data.shard_files import ShardError
from training.data.shard_names import expand_braces, find_shards, shorten_names
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
    assert expand_braces("{10..8}.tar") == ["10.tar", "9.tar", "8.tar"]
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


def refuse(data: str) -> str:
    with pytest.raises(EsViTError) as error:
        open_source(data)
    return str(error.value)


@pytest.mark.parametrize(
    "url, said",
    [
        ("http://127.0.0.1:port/a.tar", "the URL is malformed: Invalid port: 'port'"),
        ("http://[::1/a.tar", "the URL is malformed"),
        ("http:///a.tar", "the URL is malformed: it names no server"),
        ("http://[::1]/*.tar", "files of a server are not listed by its IPv6 address"),
    ],
)
def test_urls_that_cannot_be_asked_for(url, said):
    assert said in refuse(url)


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("SSL_CERT_FILE", "/none.pem", "the file of certificates '/none.pem' cannot be used"),
        ("HTTP_PROXY", "http://[::1", "the proxy that HTTP_PROXY names cannot be used: Invalid port"),
    ],
)
def test_what_the_environment_names_wrongly(name, value, said, monkeypatch):
    for each in (*http_client.CERTIFICATES, *http_client.PROXIES):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, value)
    http_client.open_client.cache_clear()
    assert said in refuse("http://127.0.0.1:9/a.tar")
    http_client.open_client.cache_clear()


def test_brackets_of_an_ipv6_address_are_no_pattern():
    assert find_shards("http://[::1]/{0,1}.tar") == ["http://[::1]/0.tar", "http://[::1]/1.tar"]


def test_many_shards_are_listed_in_braces(tmp_path):
    """The text is longer than any path of a file."""
    first = WRITE["tar"](tmp_path, [2])[0]
    others = [str(tmp_path / f"{index}-{'x' * 60}.tar") for index in range(60)]
    assert f"no file matches {others[0]!r}" in refuse(f"{{{','.join([first, *others])}}}")
