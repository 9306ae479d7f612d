# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which extensions are read, and what is said of other files."""

import pytest

from modeling_esvit.images.formats import advise_on_content, list_image_extensions


def test_extensions_are_those_of_formats_that_are_read():
    assert {
        ".jpg",
        ".jpeg",
        ".png",
        ".gif",
        ".webp",
        ".tiff",
        ".bmp",
        ".jp2",
        ".ppm",
        ".mpo",
    } <= list_image_extensions()
    assert not {".eps", ".h5", ".mpg", ".pdf", ".txt", ".dds", ".psd"} & list_image_extensions()


@pytest.mark.parametrize(
    "start, advice",
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "pip install pillow-heif"),
        (b"\xff\x0a\0\0", "pip install pillow-jxl-plugin"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "pip install pillow-jxl-plugin"),
        (b"a text", ""),
        (b"", ""),
    ],
)
def test_what_to_do_about_a_file_by_its_first_bytes(start, advice):
    assert advise_on_content(start) == advice
