# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how shards are read from servers."""

from training.data.shard_files import retry


def test_patience_waits_as_long_as_the_server_says(monkeypatch):
    waits = []
    monkeypatch.setattr("training.data.shard_files.time.sleep", waits.append)
    answers = iter([ConnectionResetError("a"), TimeoutError("b"), None])

    def action():
        if error := next(answers):
            raise error
        return "done"

    assert retry("x", 100, action) == "done" and waits == [0.5, 1.0]
