# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""A file of features is taken for the images and the model that it is of, and no others."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modeling_esvit.embed.files import Features, OutputError
from modeling_esvit.embed.origin import check_origin, make_origin
from modeling_esvit.storage.identity import identify_files


SETTINGS = {"weights": 1, "processing": {"size": (8, 8)}, "white_level": None, "dtype": "float32"}


@pytest.fixture
def files(tmp_path) -> list[str]:
    for name in ("a.png", "b.png", "more/c.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(name.encode())
    return [str(tmp_path / "data" / name) for name in ("a.png", "b.png", "more/c.png")]


def make(files: list[str]) -> dict:
    return make_origin(SETTINGS, identify_files(files))


def keep(files: list[str], origin: dict) -> Features:
    return Features(files, np.zeros((len(files), 4)), origin=json.loads(json.dumps(origin)))


def test_the_same_images_from_elsewhere(files, tmp_path, monkeypatch):
    """The names become those of this call, also where an image could not be read."""
    monkeypatch.chdir(tmp_path)
    here = ["data/a.png", "data/b.png", "data/more/c.png"]
    found = check_origin(keep(files[1:], make(files)), make(here), Path("f.parquet"))
    assert found.names == here[1:]
    assert str(tmp_path) not in json.dumps(make(here))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": 2}, "f.npz holds features of another model"),
        ({"processing": {"size": [9, 9]}}, "of images prepared in another way or size"),
        ({"white_level": 1.0}, "of another --white_level"),
        ({"images": None}, "f.npz is damaged where it says"),
        ({"images": {"files": "x"}}, "f.npz is damaged where it says"),
    ],
)
def test_another_model_or_file(files, change, message):
    with pytest.raises(OutputError, match=f"{message}.* Name another file"):
        check_origin(keep(files, make(files) | change), make(files), Path("f.npz"))


def test_other_images_and_files_that_say_nothing(files):
    before = keep(files, make(files))
    Path(files[0]).write_bytes(b"b.pnh")  # of the same size
    with pytest.raises(OutputError, match="features of other images: a.png has another content"):
        check_origin(before, make(files), Path("f.npz"))
    with pytest.raises(OutputError, match="features of other images: b.png is missing"):
        check_origin(before, make([files[0], files[2]]), Path("f.npz"))
    with pytest.raises(OutputError, match="does not say of which model and images"):
        check_origin(replace(before, origin={}), make(files), Path("f.npz"))
