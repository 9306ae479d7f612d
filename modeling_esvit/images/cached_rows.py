# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Loads rows from the cache of `datasets`, or anew where that has those of other files.

It knows a file by path and time alone: another one with both, as archives give them, would not be seen.
"""

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from modeling_esvit.storage.atomic import write_text
from modeling_esvit.storage.identity import identify_files
from modeling_esvit.storage.manifest import read_json


SOURCES = "esvit-sources.json"  # beside what is cached: of which files it was made


def load_anew_if_changed(load: Callable[..., Any], files: Iterable[str]) -> Any:
    """Loads rows, and makes them anew if one of their local files was changed later, or is not the one they are of."""
    rows, local = load(), [os.path.abspath(file) for file in files if os.path.exists(file)]
    if not rows.cache_files:
        return rows
    record = Path(rows.cache_files[0]["filename"]).with_name(SOURCES)
    made = min(os.stat(cached["filename"]).st_mtime_ns for cached in rows.cache_files)
    changed = max((os.stat(file).st_ctime_ns for file in local), default=0)  # which nobody sets back
    key, known = {"key": identify_files(local).compute_key()}, read_json(record)
    if changed > made or known not in (None, key):
        rows, known = load(download_mode="force_redownload"), None
    if known is None:
        with suppress(OSError):  # of a cache that others may write alone
            write_text(record, json.dumps(key), shared=True)
    return rows
