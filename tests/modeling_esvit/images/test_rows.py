# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how the cells of data sets become records."""

import numpy as np
import pytest
from PIL import Image

from modeling_esvit.images.decoding import DEFAULT, DecodingOptions, Record, UnreadableImageError, decode
from modeling_esvit.images.rows import find_access, read_cell


def test_cells_of_every_form():
    for cell, image, name in [
        (b"content", b"content", None),
        ("a/b.png", "a/b.png", "a/b.png"),
        ({"bytes": b"content", "path": "b.png"}, b"content", "b.png"),
        ({"bytes": None, "path": "a\n.png"}, "a\n.png", "a\\n.png"),
        ({"bytes": b"content"}, b"content", None),
        (None, b"", None),
        ({"bytes": None, "path": None}, b"", None),
    ]:
        assert read_cell(cell, 3, DEFAULT) == Record(image, 3, name, DEFAULT)


def test_relative_folders_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_access("data", repository="a/b").folders[0] == str(tmp_path / "data")


def test_cells_of_pixels():
    array, image = np.zeros((2, 3, 3), np.uint8), Image.new("RGB", (3, 2))
    assert read_cell(array, 3, DEFAULT) == Record(array, 3, None, DEFAULT)
    assert read_cell(image, 3, DEFAULT) == Record(image, 3, None, DEFAULT)


def test_urls_of_rows_are_named_without_their_secrets(tmp_path):
    url = "http://ada:CANARY@127.0.0.1:9/x.png?sig=CANARY"
    record = read_cell({"bytes": None, "path": url}, None, DecodingOptions())
    assert record.name == "http://127.0.0.1:9/x.png" and record.image == url
    restricted = DecodingOptions(access=find_access(tmp_path))
    with pytest.raises(UnreadableImageError) as raised:
        decode(read_cell(url, None, restricted))
    assert "the row names http://127.0.0.1:9/x.png, which is no file" in str(raised.value)
    assert "CANARY" not in str(raised.value)


def test_images_in_base64_are_named_as_such():
    """They were taken for paths, and errors held them as a whole."""
    record = read_cell({"bytes": None, "path": "iVBORw0KGgo/" * 1000}, None, DecodingOptions())
    with pytest.raises(UnreadableImageError) as error:
        decode(record._replace(name="row 3"))
    assert str(error.value) == "row 3: a text of 12000 characters is no path; if it is base64, decode it into bytes"
