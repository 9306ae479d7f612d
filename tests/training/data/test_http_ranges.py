# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what is made of the answers of servers that are old, careless, slow or hostile."""

import logging

import pytest

from modeling_esvit.storage.url_secrets import hide_secrets
from tests.helpers.shard_server import serve
from training.data import http_ranges
from training.data.http_ranges import (
    AnswerError,
    ChangedFileError,
    HttpFile,
    StatusError,
    find_http_file,
    get_http,
    read_http_range,
)
from training.data.shard_files import ShardError, ShardFile


@pytest.fixture
def server(tmp_path):
    (tmp_path / "a.tar").write_bytes(bytes(range(200)))
    (tmp_path / "empty.tar").write_bytes(b"")
    with serve(tmp_path) as server:
        yield server


def test_a_part_of_a_file(server):
    found = find_http_file(server.url("a.tar"))
    assert found.size == 200 and found.version.startswith('"')
    assert read_http_range(server.url("a.tar"), 7, 12, found) == bytes(range(7, 12))
    with pytest.raises(StatusError, match="404"):
        find_http_file(server.url("b.tar"))


def test_a_signature_and_a_login_are_sent_and_never_logged(server, caplog):
    caplog.set_level(logging.DEBUG)
    server.secret = ("?sig=abc%2F", "ada:secret")
    with pytest.raises(StatusError, match="403"):
        find_http_file(server.url("a.tar"))
    url = hide_secrets(server.url("a.tar").replace("://", "://ada:secret@") + "?sig=abc%2F")
    assert url == server.url("a.tar") and read_http_range(url, 0, 9, find_http_file(url)) == bytes(range(9))
    assert server.requests[-1] == "/a.tar?sig=abc%2F"
    assert get_http().__name__ in {record.name for record in caplog.records}
    assert not any(word in caplog.text for word in ("secret", "abc%2F"))


def test_a_redirection_is_followed(server):
    server.manners, server.secret = {"redirect"}, ("?sig=abc", "")
    found = find_http_file(server.url("a.tar"))
    assert read_http_range(server.url("a.tar"), 190, 200, found) == bytes(range(190, 200))


def test_a_server_without_ranges_is_refused(server):
    found = find_http_file(server.url("a.tar"))
    server.manners = {"whole"}
    for ask in (find_http_file, lambda url: read_http_range(url, 50, 60, found)):
        with pytest.raises(AnswerError, match="200 with a whole file where a part was asked for.*Download the shards"):
            ask(server.url("a.tar"))


def test_a_page_in_place_of_a_file_is_called_so(server, tmp_path):
    (tmp_path / "a.tar").write_bytes(b"<!DOCTYPE html><title>Log in</title>")
    server.manners = {"whole"}
    with pytest.raises(AnswerError, match="answers 200 with a web page"):
        find_http_file(server.url("a.tar"))
    server.manners, server.faults = set(), ["302"]
    with pytest.raises(AnswerError, match="answers 302, which is no part of a file"):
        find_http_file(server.url("a.tar"))


def test_a_server_that_ignores_conditions_tells_by_its_answer(server, tmp_path):
    found = find_http_file(server.url("a.tar"))
    (tmp_path / "a.tar").write_bytes(bytes(200))
    for manners in (set(), {"careless"}):
        server.manners = manners
        with pytest.raises(ChangedFileError, match="412|its version is now"):
            read_http_range(server.url("a.tar"), 0, 9, found)
    server.tags = False
    (tmp_path / "a.tar").write_bytes(bytes(300))
    with pytest.raises(ChangedFileError, match="size is now 300, and was 200"):
        read_http_range(server.url("a.tar"), 0, 9, found)


def test_a_body_without_end_is_not_read_to_its_end(server):
    found = find_http_file(server.url("a.tar"))
    server.manners = {"endless"}
    with pytest.raises(AnswerError, match="more than the 200 bytes"):
        read_http_range(server.url("a.tar"), 0, 200, found)


def test_what_is_compressed_is_not_unpacked(server):
    found = find_http_file(server.url("a.tar"))
    server.manners = {"packed"}
    with pytest.raises(AnswerError, match="the server compresses what it sends"):
        read_http_range(server.url("a.tar"), 0, 200, found)


def test_a_private_address_is_not_asked_again_and_again(server):
    server.manners = {"private"}
    with pytest.raises(ShardError, match="a.tar: RedirectError: the server redirects to 10.255.255.1, .* private"):
        ShardFile.locate(server.url("a.tar"), retry_seconds=300)
    assert len(server.requests) == 1


def test_another_part_than_asked_for_is_refused():
    with pytest.raises(AnswerError, match="another part than was asked for: 'bytes 0-9/200'"):
        http_ranges._check_version({"Content-Range": "bytes 0-9/200"}, 50, HttpFile(200, ""))
