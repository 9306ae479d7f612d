# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that damaged lines of a run's log are none."""

from modeling_esvit.storage.run_log import parse_record, read_log


def test_a_damaged_line_of_the_log_is_nothing(tmp_path):
    whole = '{"step": 3, "loss": 1.5}'
    assert parse_record(whole) == {"step": 3, "loss": 1.5}
    damaged = ('{"step": 4, "lo', "4", "[]", "null", '{"loss": 1}', '{"step": "4"}', '{"step": 4, "loss": "1"}')
    for line in damaged:
        assert parse_record(line) is None
    (tmp_path / "log.jsonl").write_text("\n".join([*damaged, whole, "\xff"]), encoding="latin-1")
    assert read_log(tmp_path / "log.jsonl") == [parse_record(whole)]
    assert read_log(tmp_path / "nothing.jsonl") == []
