# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks files of features."""

import pytest

from modeling_esvit.embed.files import FORMATS, OutputError, format_unreadable, load_features


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_of_other_content_is_no_features(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    for content in (b"", b"something else, longer than a header"):
        path.write_bytes(content)
        with pytest.raises(OutputError, match="holds no features that embed wrote"):
            load_features(path)
    with pytest.raises(FileNotFoundError):
        load_features(tmp_path / f"none{suffix}")


def test_names_and_reasons_are_listed_in_their_order():
    assert format_unreadable({"b.jpg": "b.jpg: empty", "a.jpg": "no: file"}) == "b.jpg\tempty\na.jpg\tno: file\n"
