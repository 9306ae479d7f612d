# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what becomes of the errors of `datasets`."""

import errno
import os
import zipfile

import datasets
import pytest

from modeling_esvit.errors import EsViTError
from modeling_esvit.images.data_errors import DataNotFoundError, DataOptionError, EmptySourceError, name_datasets_errors
from tests.helpers.shard_server import picture


GENERATION = datasets.exceptions.DatasetGenerationError("An error occurred")


@pytest.mark.parametrize(
    "error, expected, message",
    [
        (datasets.exceptions.DatasetNotFoundError("none"), DataNotFoundError, "'photos' is neither a file.*: none"),
        (ConnectionError("offline"), DataNotFoundError, "'photos' is neither a file.*: offline"),
        (ValueError("no split"), DataOptionError, "^'photos': no split"),
        (RuntimeError("Dataset scripts are no longer supported"), DataOptionError, "^'photos': Dataset scripts"),
        (GENERATION, DataOptionError, "^'photos' cannot be read: An error occurred"),
        (EmptySourceError("complete"), EmptySourceError, "^complete"),
    ],
)
def test_errors_of_datasets_are_named(error, expected, message):
    with pytest.raises(EsViTError, match=message) as found, name_datasets_errors("photos"):
        raise error
    assert type(found.value) is expected


@pytest.mark.parametrize(
    "place, number, is_advised",
    [("", errno.EACCES, True), ("/cache/x.lock", errno.EROFS, True), (None, errno.ENOSPC, True)]
    + [("/photos/x.parquet", errno.EACCES, False), ("/cache", errno.EISDIR, False)],
)
def test_a_cache_that_cannot_be_written_is_named(place, number, is_advised, monkeypatch, tmp_path):
    """datasets issues 6589 and 7900, dataset-viewer pull 2952: it is of another user, or read-only, or full."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    error = OSError(number, os.strerror(number), place if place is None else f"{tmp_path}{place}")
    generation = datasets.exceptions.DatasetGenerationError("An error occurred")
    generation.__cause__ = error
    for raised in (error, generation):
        with pytest.raises(DataOptionError, match=r"\[Errno") as found, name_datasets_errors("photos"):
            raise raised
        advice = f"stored in {tmp_path}/cache: HF_DATASETS_CACHE names another folder"
        assert (advice in str(found.value)) == is_advised


def test_zip_files_of_the_hub_that_datasets_gives_other_classes_are_to_be_downloaded(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("cat/1.png", picture(1))
        archive.writestr("dog/2.png", picture(2))
    for data, is_advised in {"ada/photographs": True, str(tmp_path): False}.items():
        with pytest.raises(DataOptionError, match="Invalid string class label") as found, name_datasets_errors(data):
            datasets.load_dataset("imagefolder", data_files=str(tmp_path / "photos.zip"), cache_dir=tmp_path / "cache")
        assert (
            "(hf download ada/photographs --repo-type dataset --local-dir FOLDER)" in str(found.value)
        ) == is_advised
