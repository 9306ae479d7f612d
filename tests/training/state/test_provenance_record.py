# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a run records where its data and first weights came from once, and for good."""

import pytest
import yaml

from modeling_esvit.storage.weights_record import ProvenanceError, WeightsRecord, write_weights_record
from training.options.provenance import Provenance
from training.state.provenance_record import (
    describe_run,
    describe_start,
    find_start,
    find_weights_record,
    read_options,
    read_provenances,
    write_provenances,
)


NO_START = {"task": "view", "init_from": None, "backbone": None, "backbone_weights": False}
PACKAGE = WeightsRecord("the package x", "with labels", license="mit")


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


@pytest.mark.parametrize("prefix", ["", "timm:local-dir:"])
def test_a_run_keeps_what_is_recorded_of_its_first_weights(tmp_path, prefix):
    """Also when their folder is gone, or holds others by then."""
    (tmp_path / "base").mkdir()
    write_weights_record(tmp_path / "base", PACKAGE)
    options = {"backbone": f"{prefix}{tmp_path}/base"}
    for _ in range(2):
        write_provenances(tmp_path, options)
        assert read_provenances(tmp_path) == {"backbone": Provenance("folder", weights=PACKAGE)}
        (tmp_path / "base" / "provenance.json").write_text("damaged")


def test_a_run_tells_of_its_teacher_what_it_started_from(tmp_path):
    data = {"data": Provenance("hub", "org/photos")}
    made = describe_run(NO_START, data)
    assert made.training == "without labels on org/photos (task view), starting from random weights"
    assert made.by_esvit and made.is_teacher and made.license is None
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "config.json").touch()
    (tmp_path / "options.yaml").write_text(yaml.safe_dump(NO_START | {"data": "secret/place"}))
    write_provenances(tmp_path, {"data": str(tmp_path)})
    for name in (tmp_path, tmp_path / "teacher"):
        found = find_weights_record(str(name))
        assert found and found.training and "without labels on a folder of images" in found.training
    assert find_weights_record("org/name") is None


@pytest.mark.parametrize(
    ("options", "known", "words"),
    [
        ({}, {}, "random weights"),
        ({"backbone": "org/x"}, {"backbone": Provenance("hub", "org/x")}, "random weights"),
        (
            {"backbone": "org/x", "backbone_weights": True},
            {"backbone": Provenance("hub", "org/x")},
            "weights of `org/x`",
        ),
        ({"init_from": "x"}, {}, "the weights of a local model, of whose training nothing is recorded"),
        ({"init_from": "x"}, {"init_from": Provenance("url")}, "the weights of a model at a URL, of whose"),
        (
            {"init_from": "x"},
            {"init_from": Provenance("folder", weights=PACKAGE)},
            "the weights of the package x (licence mit, as stated there), which were trained with labels",
        ),
    ],
)
def test_where_the_first_weights_came_from(options, known, words):
    assert words in describe_start(find_start(NO_START | options, known))


@pytest.mark.parametrize("content", ["{", "[]", '{"data": {}}', '{"data": 1}'])
def test_a_damaged_record_is_said(tmp_path, content):
    assert read_provenances(tmp_path) == {}
    (tmp_path / "provenance.json").write_text(content)
    with pytest.raises(ProvenanceError, match="provenance.json, which .* is damaged"):
        read_provenances(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (": [", "options.yaml is damaged"),
        ("data: https://ada:secret@host/a.tar: [", "options.yaml is damaged"),
        ("recipe: adapt", "options.yaml is damaged .*recipe"),
        ("- a", "holds no options"),
    ],
)
def test_damaged_options_are_said(tmp_path, text, message):
    (tmp_path / "options.yaml").write_text(text)
    with pytest.raises(ProvenanceError, match=f"{message}.* name a copy of the model's folder") as error:
        read_options(tmp_path / "options.yaml")
    assert "secret" not in str(error.value)
