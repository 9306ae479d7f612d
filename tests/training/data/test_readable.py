# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which images of a source are found to be readable."""

import pytest
from PIL import Image

from modeling_esvit.images.data_errors import EmptySourceError
from tests.helpers.tiny_runs import write_images
from training.data.readable import find_readable
from training.data.sources import open_source
from training.data.unreadable import TooManyUnreadableImagesError


def test_images_that_cannot_be_read_are_named_and_left_out(tmp_path):
    folder = write_images(tmp_path / "images", 4)
    Image.linear_gradient("L").save(folder / "whole.jpg")
    content = (folder / "whole.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) * 2 // 3])
    (folder / "text.png").write_bytes(b"<html>404</html>")
    source = open_source(folder)
    readable, skipped = find_readable(source, 0.01, "checking")
    paths = source.paths()
    assert [paths[number] for number in readable] == ["00.png", "01.png", "02.png", "03.png", "whole.jpg"]
    assert sorted(skipped.skipped) == ["cut.jpg", "text.png"]
    with pytest.raises(TooManyUnreadableImagesError, match="more than 0 of 7 images cannot be read"):
        find_readable(source, 0, "checking")
    for path in paths:
        (folder / path).write_bytes(b"")
    with pytest.raises(EmptySourceError, match="0 of 7 images can be read. Skipped 7 unreadable images"):
        find_readable(source, 0.01, "checking")
