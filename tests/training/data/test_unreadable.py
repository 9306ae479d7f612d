# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that unreadable images are counted once, named, and limited."""

import pytest

from training.data.unreadable import SkipLog, TooManyUnreadableImagesError


def test_skip_log_counts_each_image_once_and_names_it():
    log = SkipLog(num_images=2000, max_unreadable=0.01)
    assert log.summary() == ""
    log.add({f"{i}.jpg": f"{i}.jpg: truncated" for i in range(20)})
    log.add({"3.jpg": "3.jpg: truncated"})
    assert "20 unreadable images were skipped:" in log.summary() and "3.jpg: truncated" in log.summary()
    assert log.summary(max_names=5).endswith("... and 15 more")
    with pytest.raises(TooManyUnreadableImagesError, match="more than 20 of 2000 images cannot be read"):
        log.add({"x.jpg": "x.jpg: empty"})


def test_skip_log_limits():
    SkipLog(num_images=12).add({str(i): "" for i in range(10)})  # few bad files never stop a run
    with pytest.raises(TooManyUnreadableImagesError):
        SkipLog(num_images=12).add({str(i): "" for i in range(11)})
    with pytest.raises(TooManyUnreadableImagesError):
        SkipLog(num_images=12, max_unreadable=0).add({"x.jpg": ""})
