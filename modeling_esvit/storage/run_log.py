# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes and reads the lines of a run's log, each a JSON object that ends in a checksum of what is before it.

The log grows with the run, so that a checksum of the file would be wrong whenever the run is killed.
"""

import json
import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


logger = logging.getLogger(__name__)

LOG = "log.jsonl"  # in the folder of a run
CHECK = ', "crc32": '


def format_record(values: Mapping[str, float | None]) -> str:
    """Returns a line of the log."""
    text = json.dumps(values)[:-1]
    return f"{text}{CHECK}{zlib.crc32(text.encode())}}}\n"


def read_log(log: Path) -> list[dict[str, Any]]:
    """Returns the whole lines of a log, and warns of others."""
    records, damaged = read_records(log)
    if damaged:
        logger.warning("Damaged lines of %s that are left out: %d.", log, damaged)
    return records


def read_records(log: Path) -> tuple[list[dict[str, Any]], int]:
    """Returns the whole lines of a log, and how many others it has, such as half a line that a killed process left.

    Lines of an earlier version have no checksum, but then no line of the log has one.
    """
    lines = log.read_text(errors="replace", encoding="utf-8").splitlines() if log.is_file() else []
    checked = [line for line in lines if CHECK in line] or lines
    records = [values for line in checked if (values := parse_record(line)) is not None]
    return records, len(lines) - len(records)


def parse_record(line: str) -> dict[str, Any] | None:
    """Returns the values of a line of the log; None if the line is damaged."""
    text, has_check, check = line.rpartition(CHECK)
    if has_check and check != f"{zlib.crc32(text.encode())}}}":
        return None
    try:
        found = json.loads(f"{text}}}" if has_check else line)
    except (ValueError, RecursionError):
        return None
    if not (isinstance(found, dict) and isinstance(found.get("step"), int)):
        return None
    return found if all(isinstance(value, int | float | None) for value in found.values()) else None
