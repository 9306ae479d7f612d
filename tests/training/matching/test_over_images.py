# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the scores of all images of a source: a row for each readable image, made once."""

import pytest
import torch

from modeling_esvit.embed.files import OutputError
from tests.helpers.tiny_runs import write_images, write_model
from training.data.sources import open_source
from training.features.frozen_models import load_frozen
from training.matching import over_images
from training.matching.measures import MIRRORED_NAMES, POSITION_NAMES
from training.matching.over_images import Measured, RegionMatcher, measure_images
from training.matching.pairs import CROPS, MIRRORED


def test_rows_of_readable_images_are_made_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(over_images, "BATCHES", 1)
    images = write_images(tmp_path / "images", 5)
    (images / "03.png").write_bytes(b"no image")
    matcher = RegionMatcher(load_frozen(str(write_model(tmp_path / "model"))), 32)
    source = open_source(images)
    measured = Measured((MIRRORED, CROPS), side=32, seed=0, batch_size=2)
    scores, parts, skipped = measure_images(matcher, source, measured, tmp_path / "r.json", threads=1)
    assert "03.png" in skipped.summary() and not caplog.text  # the caller says it, once for all models
    assert [parts.is_done(number) for number in range(4)] == [True, True, True, False]
    assert scores[MIRRORED].shape == (4, len(MIRRORED_NAMES)) and scores[CROPS].shape == (4, len(POSITION_NAMES))
    monkeypatch.setattr(over_images, "score_pairs", None)  # what is there is not scored again
    again, _, _ = measure_images(matcher, source, measured, tmp_path / "r.json", threads=1)
    assert all(torch.equal(again[name].nan_to_num(), scores[name].nan_to_num()) for name in (MIRRORED, CROPS))
    with pytest.raises(OutputError, match="seed was 0 and is 1"):
        measure_images(matcher, source, Measured((MIRRORED,), 32, 1, 2), tmp_path / "r.json", threads=1)


@pytest.mark.slow
@pytest.mark.parametrize("mode, compiles", [("on", True), ("auto", False)])
def test_regions_are_compiled_if_asked_for_or_repaid(tmp_path, mode, compiles):
    """12 images in batches of 4 make 3 batches of 8 views for each of two kinds; so few do not repay compiling."""
    folder, source = str(write_model(tmp_path / "model")), open_source(write_images(tmp_path / "images", 12))
    measured = Measured((MIRRORED, CROPS), side=32, seed=0, batch_size=4)
    found = []
    for matcher in (RegionMatcher(load_frozen(folder, compile=each), 32) for each in (mode, "off")):
        scores, parts, _ = measure_images(matcher, source, measured, tmp_path / "r.json", threads=1)
        parts.delete()
        found.append(scores)
        matches = matcher.forward.compiled is not None
        assert matches == (compiles and len(found) == 1)
        assert matcher.forward.images == 0
    for name in measured.pairs:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-4, atol=1e-4, equal_nan=True)
