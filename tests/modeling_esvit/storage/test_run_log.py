# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that damaged lines of a run's log are none."""

import json

from modeling_esvit.storage.run_log import format_record, parse_record, read_log


RECORDS = [{"step": 1, "loss": 7.0625}, {"step": 2, "loss": 6.5, "lr": 5e-05}, {"step": 2, "knn_k3_top1": None}]


def test_each_flipped_bit_of_a_log_loses_lines_and_changes_none(tmp_path, caplog):
    log = tmp_path / "log.jsonl"
    whole = "".join(map(format_record, RECORDS)).encode()
    log.write_bytes(whole)
    assert read_log(log) == RECORDS and not caplog.messages
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        log.write_bytes(changed)
        found = read_log(log)
        assert all(record in RECORDS for record in found)
        assert found == RECORDS or f"Damaged lines of {log} that are left out: " in caplog.text
        caplog.clear()


def test_a_log_of_an_earlier_version_has_no_checksums(tmp_path):
    log = tmp_path / "log.jsonl"
    old = "".join(f"{json.dumps(record)}\n" for record in RECORDS)
    log.write_text(old)
    assert read_log(log) == RECORDS
    log.write_text(old + format_record(RECORDS[0]))
    assert read_log(log) == [RECORDS[0]]


def test_a_damaged_line_of_the_log_is_nothing(tmp_path):
    whole = '{"step": 3, "loss": 1.5}'
    assert parse_record(whole) == {"step": 3, "loss": 1.5}
    damaged = ('{"step": 4, "lo', "4", "[]", "null", '{"loss": 1}', '{"step": "4"}', '{"step": 4, "loss": "1"}')
    for line in damaged:
        assert parse_record(line) is None
    (tmp_path / "log.jsonl").write_text("\n".join([*damaged, whole, "\xff"]), encoding="latin-1")
    assert read_log(tmp_path / "log.jsonl") == [parse_record(whole)]
    assert read_log(tmp_path / "nothing.jsonl") == []
