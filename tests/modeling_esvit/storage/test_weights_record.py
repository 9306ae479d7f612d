# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a model folder says where its weights came from, and of no other weights than its own."""

import json

import pytest

from modeling_esvit.storage.weights_record import (
    RECORD,
    ProvenanceError,
    WeightsRecord,
    read_weights_record,
    write_weights_record,
)


WEIGHTS = WeightsRecord("the package x", "with labels", license="mit")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    write_weights_record(tmp_path, WEIGHTS)
    return tmp_path


def test_it_is_read_as_it_was_written(folder):
    assert read_weights_record(folder) == WEIGHTS
    assert (
        WEIGHTS.describe()
        == "the weights of the package x (licence mit, as stated there), which were trained with labels"
    )
    assert WeightsRecord("a file").describe() == "the weights of a file"


def test_a_folder_without_one_has_none(tmp_path):
    write_weights_record(tmp_path, None)
    assert read_weights_record(tmp_path) is None and not (tmp_path / RECORD).exists()


def test_weights_that_were_trained_further_are_others(folder):
    (folder / "model.safetensors").write_bytes(b"trained further")
    with pytest.raises(ProvenanceError, match="provenance.json, .* tells of other weights than those beside it"):
        read_weights_record(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": 7}, "training of the weights is 7"),
        ({"by_esvit": None}, "by_esvit"),
        ({"more": 1}, "have the fields"),
    ],
)
def test_wrong_fields_are_said(folder, change, message):
    record = json.loads((folder / RECORD).read_text())
    record["weights"] |= change
    (folder / RECORD).write_text(json.dumps(record))
    with pytest.raises(ProvenanceError, match=f"provenance.json, .* is damaged: .*{message}"):
        read_weights_record(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"weights": []}', '{"weights": {}}', b"\xff", b"[" * 200_000])
def test_a_damaged_record_is_said(folder, content):
    (folder / RECORD).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ProvenanceError, match="provenance.json, which .* is damaged"):
        read_weights_record(folder)
