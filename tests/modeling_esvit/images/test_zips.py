# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that zip files give the images and the classes that they would give unpacked."""

import io
import stat
import struct
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_esvit.embed.inputs import find_images
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.decoding import decode
from modeling_esvit.images.zips import name_classes
from tests.helpers.shard_server import picture
from training.data.named_data import open_held_out
from training.data.sources import open_source


def write_zip(file, *names: str) -> None:
    file.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, picture(number) if name.endswith(".png") else "text")


def test_folders_in_a_zip_file_are_classes(tmp_path):
    write_zip(
        tmp_path / "all" / "train.zip", "train/dog/2.png", "train/cat/1.png", "train/cat/3.png", "train/notes.txt"
    )
    write_zip(tmp_path / "all" / "test.zip", "cat/1.png", "bird/1.png", "labels/1.txt", "labels/2.txt")
    train, test = open_source(tmp_path / "all"), open_source(tmp_path / "all", split="test")
    assert [train.class_names[train.read(row).label] for row in range(3)] == ["cat", "cat", "dog"]
    assert all(decode(train.read(row)) for row in range(3))
    assert train.left_out == {".txt": 1} and test.class_names == ["bird", "cat"]
    assert [len(part) for part in open_held_out(str(tmp_path / "all"), 0.5)] == [2, 1]
    assert len(find_images(str(tmp_path / "all"))) == 3
    with pytest.raises(EsViTError, match="has no split 'validation'; it has .*train.* as validation.zip: unpack one"):
        open_source(tmp_path / "all", split="validation")


@pytest.mark.parametrize(
    ("members", "classes"),
    [
        (["a/cat/1.png", "a/dog/2.png"], ["cat", "dog"]),
        (["cat/1.png", "cat/2.png"], ["cat", "cat"]),
        (["cat/black/1.png", "dog/2.png"], ["cat", "dog"]),
        (["caf\u00e9/1.png", "cafe\u0301/2.png"], ["caf\u00e9", "caf\u00e9"]),
        (["1.png", "dog/2.png"], None),
        (["a/1.png", "a/dog/2.png"], ["a", "a"]),
        (["a\\cat\\1.png", "a\\dog\\2.png"], ["cat", "dog"]),
    ],
)
def test_classes_are_the_first_folders_that_differ(members, classes):
    assert name_classes(members) == classes


def test_zip_files_that_are_none_or_hold_no_image_are_named(tmp_path):
    write_zip(tmp_path / "cut" / "train.zip", "cat/1.png")
    content = (tmp_path / "cut" / "train.zip").read_bytes()
    (tmp_path / "cut" / "train.zip").write_bytes(content[: len(content) // 2])
    write_zip(tmp_path / "texts" / "train.zip", "a.txt", "b.heic")
    for open_it in (open_source, find_images):
        with pytest.raises(EsViTError, match="train.zip is no whole zip file: it was cut off"):
            open_it(str(tmp_path / "cut"))
        with pytest.raises(EsViTError, match="hold no image, only .*1 .heic: pip install pillow-heif"):
            open_it(str(tmp_path / "texts"))


def test_zip_files_that_datasets_takes_for_none(tmp_path):
    """It takes a kind of rows by the members that it knows, such as .jpg."""
    write_zip(tmp_path / "phone" / "photos.zip", "IMG_1.HEIC", "IMG_2.HEIC")
    write_zip(tmp_path / "nested" / "photos.zip", "photos.zip", "more.zip")
    write_zip(tmp_path / "nothing" / "photos.zip")
    said = {
        "phone": "only 2 .heic: pip install pillow-heif",
        "nested": "only 2 .zip: unpack them",
        "nothing": "nor another file",
    }
    for name, left_out in said.items():
        for open_it in (open_source, find_images):
            with pytest.raises(EsViTError, match=f"hold no image, {left_out}"):
                open_it(str(tmp_path / name))


def test_members_are_hidden_as_in_a_folder(tmp_path):
    names = ("__new__/__1.png", ".cache/2.png", "@eaDir/3.png", "cat/._4.png", "__MACOSX/cat/._5.png", "cat/6.png")
    write_zip(tmp_path / "zipped" / "train.zip", *names)
    with zipfile.ZipFile(tmp_path / "zipped" / "train.zip") as archive:
        archive.extractall(tmp_path / "folder")
    zipped, folder = open_source(tmp_path / "zipped"), open_source(tmp_path / "folder")
    assert zipped.class_names == folder.class_names == ["__new__", "cat"] and len(zipped) == len(folder) == 2
    assert zipped.left_out == {"hidden files": 4}


def test_zip_files_deeper_in_a_folder_are_read_by_all(tmp_path):
    for split, names in {"train": ("cat/1.png", "dog/2.png"), "test": ("cat/3.png",)}.items():
        (tmp_path / "deep" / "data" / split).mkdir(parents=True)
        write_zip(tmp_path / "deep" / "data" / split / "photos.zip", *names)
    train, test = open_source(tmp_path / "deep"), open_source(tmp_path / "deep", split="test")
    assert train.class_names == ["cat", "dog"] and test.class_names == ["cat"]
    assert all(decode(source.read(0)) for source in (train, test, find_images(f"{tmp_path}/deep:test")))
    (tmp_path / "capitals").mkdir()
    write_zip(tmp_path / "capitals" / "PHOTOS.ZIP", "1.png")
    for open_it in (open_source, find_images):
        assert decode(open_it(str(tmp_path / "capitals")).read(0))


def test_zip_files_without_classes_say_what_makes_some(tmp_path):
    write_zip(tmp_path / "flat" / "photos.zip", "1.png", "2.png")
    with pytest.raises(EsViTError, match="has no labels.* In zip files, put the images of each class into a folder"):
        open_held_out(str(tmp_path / "flat"), 0.5)
    write_zip(tmp_path / "splits" / "photos.zip", "train/cat/1.png", "test/cat/2.png")
    with pytest.raises(EsViTError, match="called test and train, as splits are.* Make a file of each split"):
        open_held_out(str(tmp_path / "splits"), 0.5)


@pytest.mark.parametrize(
    ("bit", "method", "said"),
    [(1, zipfile.ZIP_STORED, "is encrypted, password required"), (0, 9, "compression method is not supported")],
    ids=["password", "deflate64"],
)
@pytest.mark.parametrize("beside", ["notes.txt", "cat/metadata.csv"])
def test_a_zip_file_that_is_not_unpacked_here_is_said_once(beside, bit, method, said, tmp_path):
    file = tmp_path / "all" / "train.zip"
    write_zip(file, "cat/1.png", "cat/2.png", beside)
    content = bytearray(file.read_bytes())
    for magic, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the flags and the method, in both headers of each member
        start = content.find(magic)
        while start >= 0:
            struct.pack_into("<HH", content, start + place, bit, method)
            start = content.find(magic, start + 4)
    file.write_bytes(content)
    for open_it in (open_source, find_images):
        with pytest.raises(EsViTError, match=f"train.zip cannot be read here: .*{said}.* Unpack it"):
            open_it(str(tmp_path / "all"))


def test_a_damaged_table_in_a_zip_file_is_named(tmp_path):
    file = tmp_path / "all" / "train.zip"
    write_zip(file, "1.png")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("metadata.csv", "file_name,label\n1.png,0\n")
    file.write_bytes(file.read_bytes().replace(b"1.png,0", b"1.png,1"))
    for open_it in (open_source, find_images):
        with pytest.raises(EsViTError, match="train.zip is damaged in metadata.csv: Bad CRC-32"):
            open_it(str(tmp_path / "all"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_links_members_that_come_twice_and_names_of_other_programs(tmp_path):
    file = tmp_path / "all" / "train.zip"
    write_zip(file, "./__background__/__1.png", "dog\\", "dog\\1.png", "dog/1.png", "dog/1.png", "./.hidden/1.png")
    link = zipfile.ZipInfo("dog/link.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(link, "1.png")
    source = open_source(tmp_path / "all")
    assert len(source) == 3 and source.class_names == ["__background__", "dog"]
    assert all(decode(source.read(row)) for row in range(3))
    said = "1 link in zip files (without -y, zip stores what a link leads to)"
    for images in (source, find_images(str(tmp_path / "all"))):
        assert images.left_out.describe().split("; ") == [
            "1 hidden file", said, "1 member that a later one of the same name replaces"
        ]  # fmt: skip


@pytest.mark.parametrize("table", ["", "file_name,label\na::b.png,0\nc.png,1\n"])
def test_members_with_two_colons_are_read(table, tmp_path):
    write_zip(tmp_path / "all" / "train.zip", "a::b.png", "c.png")
    if table:
        with zipfile.ZipFile(tmp_path / "all" / "train.zip", "a") as archive:
            archive.writestr("metadata.csv", table)
    source, images = open_source(tmp_path / "all"), find_images(str(tmp_path / "all"))
    assert len([decode(each.read(row)) for each in (source, images) for row in range(2)]) == 4


def test_images_that_no_table_names_are_counted(tmp_path):
    write_zip(tmp_path / "all" / "train.zip", "1.png", "mask.png", "2.png", "notes.txt")
    with zipfile.ZipFile(tmp_path / "all" / "train.zip", "a") as archive:
        archive.writestr("metadata.csv", "file_name,mask_file_name,label\n1.png,mask.png,cat\n")
    for images in (
        open_source(tmp_path / "all", image_column="image"), find_images(str(tmp_path / "all"), "image")
    ):  # fmt: skip
        assert len(images) == 1 and decode(images.read(0))
        assert images.left_out == {".txt": 1, "images in zip files that no row of their tables names": 1}


def test_features_beside_the_images_of_a_zip_file_are_no_images(tmp_path):
    """`datasets` took the table for an image, too, and the folders for no classes."""
    table = io.BytesIO()
    pq.write_table(pa.table({"image": [{"bytes": picture(0), "path": None}], "label": ["cat"]}), table)
    write_zip(tmp_path / "both" / "train.zip", "cat/1.png", "dog/2.png")
    (tmp_path / "rows").mkdir()
    for name in ("both", "rows"):
        with zipfile.ZipFile(tmp_path / name / "train.zip", "a") as archive:
            archive.writestr("features.parquet", table.getvalue())
    both = open_source(tmp_path / "both")
    assert both.class_names == ["cat", "dog"] and len(both) == 2 and both.left_out == {".parquet": 1}
    for open_it in (open_source, find_images):
        with pytest.raises(EsViTError, match="hold no image, only 1 .parquet. Unpack the parquet files"):
            open_it(str(tmp_path / "rows"))
