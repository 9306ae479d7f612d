# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a list names the same files in every encoding and with every line end."""

import codecs

import pytest

from modeling_esvit.embed.lists import read_list


NAMES = ["a b.jpg", "é/猫.jpg", "http://host/x.jpg?y=1"]
TEXT = "# images\n" + "\n".join(NAMES) + "\n\n"


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r", "\0"])
@pytest.mark.parametrize(
    "encoding, mark",
    [
        *(("utf-8", b""), ("utf-8", codecs.BOM_UTF8), ("utf-16-le", b""), ("utf-16-le", codecs.BOM_UTF16_LE)),
        *(("utf-16-be", codecs.BOM_UTF16_BE), ("utf-16-be", b""), ("utf-32-le", codecs.BOM_UTF32_LE)),
    ],
)
def test_every_encoding(encoding, mark, line_end, tmp_path):
    (tmp_path / "list.txt").write_bytes(mark + TEXT.replace("\n", line_end).encode(encoding))
    assert [*read_list(tmp_path / "list.txt")] == [*(str(tmp_path / name) for name in NAMES[:2]), NAMES[2]]


def test_names_that_are_not_utf_8(tmp_path):
    """A list of Windows names files in UTF-8; one that `ls` wrote has the bytes of the names."""
    (tmp_path / "café.jpg").touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.jpg").touch()
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.jpg\r\nsub\\x.jpg\r\n.\\gone.jpg")
    names = [str(tmp_path / name) for name in ("café.jpg", "sub/x.jpg", ".\\gone.jpg")]
    assert [*read_list(tmp_path / "list.txt")] == names


def test_names_that_look_like_something_else(tmp_path):
    """caffe issue 1935: spaces belong to names. So does # where a file has it; a line may be too long for a name."""
    names = ["#1.jpg", " 2.jpg", "3 .jpg ", "#4/x.jpg", " ".join("word" for _ in range(99))]
    (tmp_path / "#4").mkdir()
    for name in names[:-1]:
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("\n".join(["# 1.jpg", *names]))
    assert [*read_list(tmp_path / "list.txt")] == [f"{tmp_path}/{name}" for name in names]


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.jpg").touch()
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "list.txt").write_text("~/x.jpg")
    assert [*read_list(tmp_path / "lists" / "list.txt")] == [f"{tmp_path}/x.jpg"]


def test_members_of_archives_and_files_of_stores(tmp_path):
    (tmp_path / "list.txt").write_text("zip://a/1.png::photos.zip\nzip://1.png::https://host/a.zip\ns3://bucket/1.png")
    places = [f"zip://a/1.png::{tmp_path}/photos.zip", "zip://1.png::https://host/a.zip", "s3://bucket/1.png"]
    assert [*read_list(tmp_path / "list.txt")] == places


def test_two_colons_may_be_part_of_a_name(tmp_path):
    (tmp_path / "2024::05").mkdir()
    (tmp_path / "2024::05" / "photos.zip").touch()
    (tmp_path / "list.txt").write_text("a::b.png\nzip://a::b.png::photos.zip\nzip://1.png::2024::05/photos.zip\n")
    members = [f"zip://a::b.png::{tmp_path}/photos.zip", f"zip://1.png::{tmp_path}/2024::05/photos.zip"]
    assert [*read_list(tmp_path / "list.txt")] == [f"{tmp_path}/a::b.png", *members]
