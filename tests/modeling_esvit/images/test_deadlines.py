# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that no server holds a program up for longer than a deadline, whatever it sends in the meantime."""

import socket
import threading
import time

import pytest

from modeling_esvit.images import download as module
from modeling_esvit.images.deadlines import DeadlineError, call_in_time, hold_to
from modeling_esvit.images.download import DownloadError, download
from tests.helpers.dripping_server import LONGEST, serve_drips
from training.data import http_ranges
from training.data.http_ranges import HttpFile, ShortReadError, find_http_file, read_http_range


SECONDS = 0.3


@pytest.mark.parametrize("kind", ["slow-header", "endless-notes", "slow-chunk"])
def test_a_download_ends_in_time(kind, monkeypatch):
    monkeypatch.setattr(module, "LONGEST", SECONDS)
    with serve_drips() as url:
        with pytest.raises(DownloadError, match=f"the download takes more than {SECONDS} s"):
            download(f"{url}/{kind}", 10**6)


@pytest.mark.parametrize("kind", ["slow-header", "endless-notes", "slow-chunk-of-part", "slow-part"])
def test_a_part_of_a_shard_ends_in_time(kind, monkeypatch):
    monkeypatch.setattr(http_ranges, "STALL_SECONDS", SECONDS)
    with serve_drips() as url:
        with pytest.raises((DeadlineError, ShortReadError), match=r"takes too long|only \d of 1000 bytes came in time"):
            read_http_range(f"{url}/{kind}", 0, 1000, HttpFile(1000, ""))
        if "part" not in kind:  # else the first lines tell the size
            with pytest.raises(DeadlineError):
                find_http_file(f"{url}/{kind}")


@pytest.mark.parametrize("redirects", [False, True])
def test_a_name_that_nobody_looks_up_in_time(monkeypatch, redirects):
    ended, answered, look_up = threading.Event(), [], socket.getaddrinfo

    def hang(host, *arguments, **options):
        if host == "slow":
            ended.wait(LONGEST)
            answered.append(host)
        return look_up(host if host != "slow" else "127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(module, "LONGEST", SECONDS)
    with serve_drips() as url, pytest.raises(DownloadError, match=f"the download takes more than {SECONDS} s"):
        download(f"{url}/redirect" if redirects else "http://slow/a.png", 10**6)
    assert not answered
    ended.set()


def test_the_deadline_is_that_of_its_block_alone():
    def wait(timeout):
        return timeout

    assert call_in_time(wait, timeout=30) == 30
    with hold_to(time.monotonic() + 5):
        assert call_in_time(wait, timeout=30) <= 5 and call_in_time(wait, timeout=1) == 1
        with hold_to(0), pytest.raises(DeadlineError):
            call_in_time(wait, timeout=30)
    assert call_in_time(wait, timeout=None) is None
