# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which images a figure shows, and the matches in it."""

import numpy as np

from tests.helpers.tiny_runs import write_images, write_model
from training.data.sources import open_source
from training.features.frozen_models import load_frozen
from training.matching.over_images import Measured, PairImages, RegionMatcher
from training.matching.pairs import CROPS, MIRRORED
from training.matching.top_matches import find_top_matches, pick_images


def test_evenly_spaced_readable_images_and_their_matches(tmp_path):
    images = write_images(tmp_path / "images", 6)
    (images / "02.png").write_bytes(b"no image")
    pairs = PairImages(open_source(images), Measured((MIRRORED, CROPS), side=32, seed=0, batch_size=2))
    picked = pick_images(pairs)
    assert [image.name for image in picked] == ["00.png", "03.png", "04.png"]
    matcher = RegionMatcher(load_frozen(str(write_model(tmp_path / "model"))), 32)
    for name, pair in zip((MIRRORED, CROPS), picked[0].pixels, strict=True):
        found = find_top_matches(name, pair, matcher)
        assert found.starts.shape == found.ends.shape and 0 < len(found.starts) == len(found.right) <= 10
        assert set(np.unique([found.starts, found.ends])) <= {4.0, 12.0, 20.0, 28.0}  # centres of 4 x 4 regions
