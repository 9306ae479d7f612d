# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a run records where its data came from once, and for good."""

import pytest

from training.options.provenance import Provenance
from training.state.provenance_record import ProvenanceError, read_provenances, write_provenances


def test_what_was_loaded_from_a_folder_stays_so_elsewhere(tmp_path, monkeypatch):
    """A continued run does not load `init_from` again, and may be in another folder."""
    (tmp_path / "here" / "patients" / "ada").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    options = {"data": "org/photos", "init_from": "patients/ada", "knn_test": None}
    write_provenances(tmp_path / "run", options)
    monkeypatch.chdir(tmp_path)
    found = {"data": Provenance("hub", "org/photos"), "init_from": Provenance("folder")}
    write_provenances(tmp_path / "run", options)
    assert read_provenances(tmp_path / "run") == found
    write_provenances(tmp_path / "run", options | {"init_from": None, "knn_test": "org/other:test"})
    assert read_provenances(tmp_path / "run") == {
        "data": Provenance("hub", "org/photos"),
        "knn_test": Provenance("hub", "org/other", "test"),
    }


@pytest.mark.parametrize("content", ["{", "[]", '{"data": {}}', '{"data": 1}'])
def test_a_damaged_record_is_said(tmp_path, content):
    assert read_provenances(tmp_path) == {}
    (tmp_path / "provenance.json").write_text(content)
    with pytest.raises(ProvenanceError, match="provenance.json, which .* is damaged"):
        read_provenances(tmp_path)
