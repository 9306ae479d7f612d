# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the loopback Hub itself: ranges, redirections, error codes, faults, its log, and its miniature data sets."""

import http.client
import io
import json
import time
from urllib.parse import urlparse

import numpy as np
import pytest
from PIL import Image

from tests.hub.client import GRANTED, OTHER, small_hub
from tests.hub.loopback_hub import Fault
from tests.hub.repositories import jpeg


IMAGENET, WEBDATASET = "/datasets/ILSVRC/imagenet-1k", "/datasets/timm/imagenet-1k-wds"
SHARD = f"{WEBDATASET}/resolve/main/imagenet1k-train-0000.tar"


@pytest.fixture
def hub():
    with small_hub() as running:
        yield running


def ask(hub, path, method="GET", **headers):
    """Sends one plain request to the Hub's host."""
    connection = http.client.HTTPConnection(urlparse(hub.url).netloc, timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return connection.getresponse()


def follow(hub, path, **headers):
    """Returns the answer behind a redirection to the CDN."""
    target = urlparse(ask(hub, path).headers["Location"])
    connection = http.client.HTTPConnection(target.netloc, timeout=10)
    connection.request("GET", f"{target.path}?{target.query}", headers=headers)
    return connection.getresponse()


# -- the server --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "span, expected", [("bytes=3-5", slice(3, 6)), ("bytes=20000-", slice(20000, None)), ("bytes=-7", slice(-7, None))]
)
def test_ranges_are_served(hub, span, expected):
    whole = follow(hub, SHARD).read()
    part = follow(hub, SHARD, Range=span)
    start, end, size = expected.indices(len(whole))[0], expected.indices(len(whole))[1], len(whole)
    assert part.status == 206 and part.read() == whole[expected]
    assert part.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"


def test_range_beyond_the_end_is_refused(hub):
    size = len(follow(hub, SHARD).read())
    answer = follow(hub, SHARD, Range=f"bytes={size}-")
    assert answer.status == 416 and answer.headers["Content-Range"] == f"bytes */{size}"


def test_the_cdn_serves_signed_addresses_only(hub):
    target = urlparse(ask(hub, SHARD).headers["Location"])
    connection = http.client.HTTPConnection(target.netloc, timeout=10)
    connection.request("GET", f"{target.path}?signature=0")
    assert connection.getresponse().status == 403


@pytest.mark.parametrize(
    "path, status, code",
    [
        ("/api/datasets/nobody/nothing", 401, "RepoNotFound"),
        ("/api/datasets/timm/imagenet-1k-wds/revision/refs%2Fconvert%2Fparquet", 404, "RevisionNotFound"),
        ("/api/datasets/timm/imagenet-1k-wds/tree/main/nowhere", 404, "EntryNotFound"),
        (f"{WEBDATASET}/resolve/main/nothing.tar", 404, "EntryNotFound"),
        (f"{IMAGENET}/resolve/main/nothing.parquet", 401, "GatedRepo"),
        ("/api/whoami-v2", 401, None),
        ("/elsewhere", 404, None),
    ],
)
def test_errors_carry_the_codes_that_clients_know(hub, path, status, code):
    answer = ask(hub, path)
    assert (answer.status, answer.headers["X-Error-Code"]) == (status, code)
    assert json.loads(answer.read())["error"] == answer.headers["X-Error-Message"]


def test_a_fault_has_one_effect():
    with pytest.raises(ValueError, match="status=503, cut=drop"):
        Fault("*", status=503, cut="drop")
    with pytest.raises(ValueError, match="after"):
        Fault("*", cut="short", after=None)


def test_faults_are_matched_and_counted(hub):
    fault = Fault("*train-0000.tar", status=503, skip=1, times=2)
    hub.inject(fault, Fault("*train-0000.tar", status=429, retry_after=7, method="HEAD"))
    assert [ask(hub, SHARD).status for _ in range(5)] == [302, 503, 503, 302, 302]
    assert ask(hub, SHARD.replace("0000", "0001")).status == 302
    limited = ask(hub, SHARD, "HEAD")
    assert (limited.status, limited.headers["Retry-After"]) == (429, "7")
    assert fault.hits == 2 and [entry.fault for entry in hub.requests("*0000.tar", "GET")].count("503") == 2


def test_a_fault_ends_with_its_seconds(hub):
    fault = Fault("*.tar", status=500, times=None, seconds=1000)
    hub.inject(fault)
    assert [ask(hub, SHARD).status for _ in range(3)] == [500] * 3
    fault.seconds = 0.0  # as if they were over
    assert ask(hub, SHARD).status == 302


def test_drop_sends_so_many_bytes_of_those_announced(hub):
    hub.inject(Fault("*.tar", cut="drop", after=1000))
    with pytest.raises(http.client.IncompleteRead) as failure:
        follow(hub, SHARD).read()
    assert len(failure.value.partial) == 1000
    assert [(entry.host, entry.sent, entry.fault) for entry in hub.requests("*.tar")][-1] == ("cdn", 1000, "drop")


def test_drop_before_the_head(hub):
    hub.inject(Fault("/api/whoami-v2", cut="drop", after=None))
    with pytest.raises(http.client.RemoteDisconnected):
        ask(hub, "/api/whoami-v2")
    assert hub.requests()[0].status == 0


def test_reset_is_not_an_orderly_end(hub):
    hub.inject(Fault("*.tar", cut="reset", after=1000))
    with pytest.raises(ConnectionResetError):
        follow(hub, SHARD).read()


def test_stall_goes_on_after_its_pause(hub):
    whole = follow(hub, SHARD).read()
    hub.inject(Fault("*.tar", cut="stall", after=1000, pause=0.3))
    start = time.monotonic()
    assert follow(hub, SHARD).read() == whole and time.monotonic() - start > 0.3


def test_stall_goes_on_when_it_is_resumed(hub):
    whole, fault = follow(hub, SHARD).read(), Fault("*.tar", cut="stall", after=1000, pause=1000)
    hub.inject(fault)
    answer = follow(hub, SHARD)
    assert answer.read(1000) == whole[:1000]
    fault.resumed.set()
    assert answer.read() == whole[1000:]


def test_short_body_looks_whole(hub):
    hub.inject(Fault("*.tar", cut="short", after=1000))
    answer = follow(hub, SHARD)
    assert answer.headers["Content-Length"] == "1000" and len(answer.read()) == 1000


def test_cuts_leave_shorter_answers_alone(hub):
    fault = Fault("*.tar", cut="drop", after=10**6)
    hub.inject(fault)
    assert follow(hub, SHARD).read() and fault.hits == 0


def test_the_log_knows_users_but_no_tokens(hub):
    for token in [GRANTED, OTHER, "hf_unknown_secret"]:
        ask(hub, "/api/whoami-v2", Authorization=f"Bearer {token}")
    ask(hub, SHARD)
    assert [entry.user for entry in hub.requests()] == ["granted", "other", None, None]
    assert [entry.authenticated for entry in hub.requests()] == [True, True, True, False]
    assert [entry.status for entry in hub.requests()] == [200, 200, 401, 302]
    assert "secret" not in repr(hub.log)


def test_a_client_sees_this_hub_and_nothing_of_the_user(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "of the user")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    environment = hub.environment(tmp_path, EXTRA="1")
    assert "HF_TOKEN" not in environment and "HF_HUB_OFFLINE" not in environment
    assert environment["HF_ENDPOINT"] == hub.url and environment["EXTRA"] == "1"


# -- the repositories --------------------------------------------------------------------------------------------------


def test_pictures_decode_and_differ():
    pictures = [np.asarray(Image.open(io.BytesIO(jpeg("train", number)))) for number in range(3)]
    assert all(picture.shape == (48, 64, 3) for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[1]) and jpeg("train", 0) != jpeg("validation", 0)
