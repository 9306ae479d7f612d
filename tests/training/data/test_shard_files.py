# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how shards are read from servers."""

import itertools
import socket

import pytest

from training.data.shard_files import UNKNOWN_HOST_SECONDS, ShardError, ShardFile, retry


def test_patience_waits_as_long_as_the_server_says(monkeypatch):
    waits = []
    monkeypatch.setattr("training.data.shard_files.time.sleep", waits.append)
    answers = iter([ConnectionResetError("a"), TimeoutError("b"), None])

    def action():
        if error := next(answers):
            raise error
        return "done"

    assert retry("x", 100, action) == "done" and waits == [0.5, 1.0]


@pytest.mark.parametrize(
    ("code", "seconds", "said"),
    [
        (socket.EAI_NONAME, UNKNOWN_HOST_SECONDS, "no server of this name is known here: is it spelt right"),
        (socket.EAI_AGAIN, 300, "try again"),
    ],
)
def test_a_misspelt_server_is_not_waited_for(monkeypatch, code, seconds, said):
    """A resolver that does not answer may come back; a name that it does not know is mostly a misspelt one."""
    clock = itertools.count(0, 1.0)
    waited = []

    def sleep(duration):
        waited.append(duration)
        for _ in range(int(duration)):
            next(clock)

    monkeypatch.setattr("training.data.shard_files.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("training.data.shard_files.time.sleep", sleep)

    def action():
        try:
            raise socket.gaierror(code, "try again")
        except OSError:
            raise ConnectionError("refused")  # noqa: B904  (as httpcore does)

    with pytest.raises(ShardError, match=rf"tried for {seconds:g} s") as raised:
        retry("https://no.such.host/a.tar", 300, action)
    assert seconds / 2 < sum(waited) <= seconds
    assert (said in str(raised.value)) is (code == socket.EAI_NONAME)


def test_the_path_of_a_shard_may_have_two_colons(tmp_path):
    (tmp_path / "2024::05").mkdir()
    (tmp_path / "2024::05" / "a.tar").write_bytes(b"content")
    assert ShardFile.locate(str(tmp_path / "2024::05" / "a.tar"), retry_seconds=0).read_range(3, 7) == b"tent"
