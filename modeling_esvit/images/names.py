# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Shows paths and URLs as text that every output takes, whatever bytes they are made of, and that has no secrets."""

import os

from modeling_esvit.storage.shown_text import escape_controls
from modeling_esvit.storage.url_secrets import strip_secrets


def show_name(path: str) -> str:
    r"""Returns a path as text: bytes that are not UTF-8, and control characters, become `\xNN`; the rest stays.

    Python holds such bytes in strings that no file in UTF-8, no parquet column and no terminal takes. URLs lose their
    passwords and signatures.
    """
    path = strip_secrets(path) if "://" in path else path
    return escape_controls(os.fsencode(path).decode("utf-8", "backslashreplace"))
