# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows paths and URLs as text that every output takes, whatever bytes they are made of, and that has no secrets.

The endings of names mean the same in capitals, as Windows and cameras write them.
"""

import os
from collections.abc import Iterable

from modeling_esvit.storage.shown_text import escape_controls
from modeling_esvit.storage.url_secrets import strip_secrets


def show_name(path: str) -> str:
    r"""Returns a path as text: bytes that are not UTF-8, and control characters, become `\xNN`; the rest stays.

    Python holds such bytes in strings that no file in UTF-8, no parquet column and no terminal takes. URLs lose their
    passwords and signatures.
    """
    path = strip_secrets(path) if "://" in path else path
    return escape_controls(os.fsencode(path).decode("utf-8", "backslashreplace"))


def has_ending(name: str | os.PathLike[str], endings: str | Iterable[str]) -> bool:
    """Returns whether a path or URL ends in one of `endings`, in upper or lower case."""
    known = (endings,) if isinstance(endings, str) else endings
    return os.fspath(name).lower().endswith(tuple(ending.lower() for ending in known))
