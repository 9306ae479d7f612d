# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how texts of strangers are shown."""

import pytest

from modeling_esvit.storage.shown_text import escape_controls


@pytest.mark.parametrize(
    ("kept", "shown"), [("", r"\x1b]0;a\x07\n\tb\x9b2J\u2028é"), ("\n\t", "\\x1b]0;a\\x07\n\tb\\x9b2J\\u2028é")]
)
def test_controls_and_line_ends_are_spelled_out(kept, shown):
    assert escape_controls("\x1b]0;a\x07\n\tb\x9b2J\u2028é", kept) == shown
