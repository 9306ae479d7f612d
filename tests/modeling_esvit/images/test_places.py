# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what the rows of a data set may open."""

import os
import zipfile

import pytest

from modeling_esvit.images.places import (
    ANYTHING,
    NOTHING,
    Access,
    PlaceError,
    find_local_file,
    name_instead,
    open_place,
)


@pytest.fixture
def place(tmp_path):
    """Returns a folder of a data set beside a secret."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"inside")
    (tmp_path / "database.png").write_bytes(b"secret")
    for folder in ("data", "."):
        with zipfile.ZipFile(tmp_path / folder / "b.zip", "w") as archive:
            archive.writestr("c.png", b"member")
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "database.png")
    return tmp_path


def read(place, access):
    with open_place(str(place), access, 100) as file:
        return file.read()


def test_rows_open_files_of_the_data_set(place):
    access = Access((str(place / "data"),))
    for name in ("a.png", place / "data" / "a.png", f"file://{place}/data/a.png"):
        assert read(name, access) == b"inside"
    assert read(f"zip://c.png::{place}/data/b.zip", access) == b"member"


def test_rows_open_nothing_else(place):
    access = Access((str(place / "data"),), repository="org/own")
    strangers = [place / "database.png", "../database.png", place / "data" / ".." / "database.png", "link.png",
                 "/etc/passwd", f"file://{place}/database.png", f"zip://c.png::{place}/b.zip",
                 f"simplecache::{place}/data/a.png", f"local://{place}/database.png", f"memory://{place}/data/a.png",
                 "http://host/a.png", "hf://datasets/org/own2/a.png", "hf://datasets/org/other/a.png",
                 "zip://c.png::http://host/b.zip", f"reference://x::{place}/data/a.png"]  # fmt: skip
    for stranger in strangers:
        with pytest.raises(PlaceError, match="is no file of the data set; if you trust .* --allow_paths opens it"):
            read(stranger, access)
    with pytest.raises(PlaceError):
        read(place / "data" / "a.png", NOTHING)
    assert access.locate("hf://datasets/org/own@abc/a.png") and access.locate("hf://datasets/org/own/a.png")
    for own in (place / "database.png", f"file://{place}/database.png"):
        assert read(own, ANYTHING) == b"secret"


@pytest.mark.parametrize("members", ["", "zip://c.png::"])
def test_a_zero_byte_is_in_no_name(members, place):
    for access in (Access((str(place / "data"),)), ANYTHING):
        with pytest.raises(PlaceError, match=r"b\\x00.zip has a zero byte in it, and so is no name of a file"):
            read(f"{members}b\0.zip", access)
        assert find_local_file(f"{members}b\0.zip", access) is None


def test_two_colons_may_be_part_of_a_name(place):
    """fsspec joins the links of a chain by them, and cannot name such files."""
    own, folder = Access((str(place / "data"),)), place / "data" / "2024::05"
    folder.mkdir()
    for path in (place / "data" / "a::b.png", folder / "a.png"):
        path.write_bytes(b"inside")
    for path in (place / "data" / "d.zip", folder / "d.zip", place / "d.zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("c::d.png", b"member")
    for name in ("a::b.png", "2024::05/a.png", f"file://{folder}/a.png"):
        assert read(name, own) == b"inside"
        assert read(name if "://" in name else place / "data" / name, ANYTHING) == b"inside"
    for name in ("d.zip", "2024::05/d.zip"):
        assert read(f"zip://c::d.png::{name}", own) == b"member"
        assert read(f"zip://c::d.png::file://{place}/data/{name}", ANYTHING) == b"member"
    for stranger in (f"zip://c::d.png::{place}/d.zip", f"zip://c.png::simplecache::{folder}/d.zip"):
        with pytest.raises(PlaceError, match="is no file of the data set"):
            read(stranger, own)
    with pytest.raises(FileNotFoundError, match="e::f.png"):
        read("e::f.png", ANYTHING)


def test_what_is_no_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(PlaceError, match="no regular file"):
            read(path, ANYTHING)


def test_an_archive_that_is_no_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.zip")
    own = Access((str(tmp_path),))
    for name in ("zip://a.png::pipe.zip", f"zip://a.png::file://{tmp_path}/pipe.zip", "tar://a.png::gzip://::pipe.zip"):
        with pytest.raises(PlaceError, match="no regular file"):
            read(name, own)
    with pytest.raises(PlaceError, match="no regular file"):
        read(f"file://{tmp_path}/pipe.zip", ANYTHING)


def test_members_have_a_limit(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(10**6))
    with pytest.raises(PlaceError, match="more than 100 bytes"):
        read(f"zip://a.png::{tmp_path}/bomb.zip", ANYTHING)


def test_the_members_of_a_zip_file_are_listed_once(place, monkeypatch):
    opened, original = [], zipfile.ZipFile
    monkeypatch.setattr(zipfile, "ZipFile", lambda *name, **options: opened.append(name) or original(*name, **options))
    with original(place / "many.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"[{number}]*.png", str(number))
    assert [read(f"zip://[{number}]*.png::{place}/many.zip", ANYTHING) for number in range(3)] == [b"0", b"1", b"2"]
    assert len(opened) == 1
    with original(place / "many.zip", "w") as archive:
        archive.writestr("[0]*.png", "changed")
    assert read(f"zip://[0]*.png::{place}/many.zip", ANYTHING) == b"changed"


def test_files_of_a_data_set_on_the_hub_have_no_other_name():
    hub = "hf://datasets/ada/photographs"
    for revision in ("@main", "@~parquet", "@refs%2Fconvert%2Fparquet", "@refs/convert/parquet"):
        assert name_instead(hub + revision) == "ada/photographs"
        assert name_instead(f"{hub}{revision}/train/0000.parquet") is None
