# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which extensions are read, and what is said of other files."""

from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from modeling_esvit.images.decoding import Record, decode
from modeling_esvit.images.folders import find_in_folder
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
        (b"II*\0", "of a kind that is not read, such as one of five channels: convert it to 8 bits"),
        (b"\x89PNG\r\n\x1a\n", "a damaged PNG"),
        (b"PK\x03\x04", "a zip archive: unpack it"),
        (b"<html>404</html>", "a web page"),
        (b"", "there is no content"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a pointer of Git LFS: fetch the file itself by `git lfs pull`",
        ),
    ],
)
def test_what_to_do_about_a_file_by_its_first_bytes(start, advice):
    assert advice in advise_on_content(start)
    assert advise_on_content(b"a text") == ""


PLUGINS = [("pillow_heif", "pillow-heif", ".heic"), ("pillow_jxl", "pillow-jxl-plugin", ".jxl")]


@pytest.mark.parametrize("plugin, package, suffix", PLUGINS)
def test_formats_whose_plugin_is_missing_are_counted(plugin, package, suffix, tmp_path):
    if find_spec(plugin) is not None:
        pytest.skip(f"{package} is installed")
    for name in ("a", "b"):
        (tmp_path / f"{name}{suffix.upper()}").touch()
    found = find_in_folder(tmp_path)
    assert not found.paths and found.left_out.describe() == f"2 {suffix}: pip install {package}"


@pytest.mark.parametrize("plugin, package, suffix", PLUGINS)
def test_formats_of_plugins_are_read(plugin, package, suffix, tmp_path):
    pytest.importorskip(plugin, reason=f"{package} is not installed")
    assert suffix in list_image_extensions()
    colours = np.full((32, 48, 3), (200, 90, 30), np.uint8)
    colours[:, 24:] = (20, 120, 220)
    Image.fromarray(colours).save(tmp_path / f"IMG_1{suffix}", quality=95)
    found = find_in_folder(tmp_path)
    assert found.paths == [f"IMG_1{suffix}"] and not found.left_out
    image = decode(Record(str(tmp_path / found.paths[0]), None, None))
    assert abs(np.asarray(image).astype(int) - colours)[:, [4, 44]].max() < 12
