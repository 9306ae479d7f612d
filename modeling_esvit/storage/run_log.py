# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reads the log of a run, of which each line is a JSON object."""

import json
from pathlib import Path
from typing import Any


LOG = "log.jsonl"  # in the folder of a run


def read_log(log: Path) -> list[dict[str, Any]]:
    """Returns the whole lines of a log; a killed process may have left half of the last."""
    lines = log.read_text(errors="replace", encoding="utf-8").splitlines() if log.is_file() else []
    return [values for line in lines if (values := parse_record(line)) is not None]


def parse_record(line: str) -> dict[str, Any] | None:
    """Returns the values of a line of the log; None if the line is damaged."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not (isinstance(found, dict) and isinstance(found.get("step"), int)):
        return None
    return found if all(isinstance(value, int | float | None) for value in found.values()) else None
