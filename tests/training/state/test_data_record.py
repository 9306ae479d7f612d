# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a run is not continued with other data."""

import pytest

from tests.helpers.tiny_runs import write_images
from training.data.sources import FolderSource
from training.state.checkpoints import ResumeError
from training.state.data_record import DataRecord


def test_other_data_are_refused_once_there_is_a_checkpoint(tmp_path):
    run, three, four = tmp_path / "run", write_images(tmp_path / "a", 3), write_images(tmp_path / "b", 4)
    run.mkdir()
    DataRecord(str(run)).write("photos", FolderSource(three))
    DataRecord(str(run)).check(FolderSource(four))  # there is no checkpoint to continue from
    (run / "checkpoints" / "last").mkdir(parents=True)
    record = DataRecord(str(run))
    record.check(FolderSource(three))
    assert record.commit("photos") is None
    with pytest.raises(ResumeError, match="begun with other data: 03.png is new. Bring .*delete .*data.json"):
        DataRecord(str(run)).check(FolderSource(four))
    text = (run / "data.json").read_text()
    (run / "data.json").write_text(text.replace('"photos"', '"photot"'))
    with pytest.raises(ResumeError, match="data.json is not as it was written. .* delete it, and start the same"):
        DataRecord(str(run))
    (run / "data.json").write_text("{")
    with pytest.raises(ResumeError, match="data.json, which records .*, is damaged .JSONDecodeError"):
        DataRecord(str(run))
