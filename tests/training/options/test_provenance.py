# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that only names on the Hub are public names, whatever lies in the current folder."""

import pytest

from training.options.provenance import Provenance, find_provenance


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("patients/ada", Provenance("folder")),
        ("patients/ada:secret", Provenance("folder")),
        ("patients/ada:test", Provenance("folder", split="test")),
        ("patients/a.parquet", Provenance("folder")),
        ("patients/*.parquet", Provenance("folder")),
        ("patients/{a,b}.tar:x", Provenance("folder")),
        ("gone/ada/deep", Provenance("folder")),
        ("timm", Provenance("folder")),
        ("timm:local-dir:/home/ada/model", Provenance("folder")),
        ("org/name", Provenance("hub", "org/name")),
        ("org/name:odd split", Provenance("hub", "org/name", "odd split")),
        ("timm:resnet50.a1_in1k", Provenance("hub", "timm:resnet50.a1_in1k")),
        ("hf://datasets/org/name@main/data/*.parquet", Provenance("hub", "org/name")),
        ("https://host:8080/ada/0.tar", Provenance("url")),
        ("https://host/ada/0.tar:test", Provenance("url", split="test")),
        ("s3://ada/{0..3}.tar", Provenance("url")),
    ],
)
def test_where_data_came_from(tmp_path, monkeypatch, text, found):
    monkeypatch.chdir(tmp_path)
    for name in ("patients/ada", "timm"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "patients" / "a.parquet").touch()
    assert find_provenance(text) == found
    told = (found.public_data, found.public_model, found.word)
    assert found.kind == "hub" or not any("ada" in text or "secret" in text for text in told)


def test_a_home_folder_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x").mkdir()
    assert find_provenance("~/x") == Provenance("folder")
