# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Tar files and folders of shards as strangers have them, through the command that a user types.

What each test stands for was reported by users of other projects; the comments name the reports.
"""

import re
import tarfile
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.shard_server import picture, write_members
from tests.helpers.wild_data import count_images, number, pretrain, refuse


LINK, SYMLINK = tarfile.LNKTYPE, tarfile.SYMTYPE
LONG = "é" * 150
READ = {
    # NVIDIA/DALI issue 3658, pytorch-image-models issue 2154: pretraining needs no labels
    "words": ({"0.jpg": 0, "0.cls": b"n01440764", "1.jpg": 1, "1.cls": b"dog"}, 2),
    "minus one": ({"0.jpg": 0, "0.cls": b"-1", "1.jpg": 1, "1.cls": b"-1"}, 2),
    "25 digits": ({"0.jpg": 0, "0.cls": b"1" * 25, "1.jpg": 1, "1.cls": b"2"}, 2),
    # webdataset issues 140 and 407
    "unsorted": ({"0.jpg": 0, "1.jpg": 1, "0.cls": b"0", "1.cls": b"1"}, 2),
    "without an image": ({"0.jpg": 0, "0.txt": b"a", "1.json": b"{}", "2.jpg": 2}, 2),
    # datasets issue 7055
    "left and right": ({"0.left.jpg": 0, "0.right.jpg": 1, "1.left.jpg": 2, "1.right.jpg": 3}, 4),
    "dots": ({"IMG_1.12.jpg": 0, "IMG_1.13.jpg": 1, "IMG_2.7.5.jpg": 2}, 3),
    "both cases": ({"a.JPG": 0, "a.jpg": 1}, 2),
    "a mask": ({"0.jpg": 0, "0.seg.png": 9, "1.jpg": 1, "1.seg.png": 9}, 2),
    "links": ({"a/0.jpg": 0, "b/0.jpg": (LINK, "a/0.jpg"), "c/0.jpg": (SYMLINK, "../b/0.jpg")}, 3),
    "long names": ({f"{LONG}/0.jpg": 0, f"{LONG}/1.jpg": 1}, 2),
}


@pytest.mark.parametrize("kind", READ)
def test_tars_that_are_read(kind, tmp_path):
    members, images = READ[kind]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT) if kind == "long names" else (tarfile.PAX_FORMAT,):
        write_members(tmp_path / "a.tar", number(members), format=form)
        assert count_images(pretrain(tmp_path / "a.tar", tmp_path / f"run{form}")) == images


def test_joined_tars_are_read_whole(tmp_path):
    """`cat` of shards whose names begin anew (libarchive issue 457), and `tar -A`, which keeps one end mark."""
    for name, first in {"a.tar": 0, "b.tar": 10}.items():
        members = {f"{index}.jpg": first + index for index in range(2)}
        write_members(tmp_path / name, number(members | {"0.cls": b"%d" % first, "1.cls": b"7"}))
    parts = [(tmp_path / name).read_bytes() for name in ("a.tar", "b.tar")]
    (tmp_path / "cat.tar").write_bytes(b"".join(parts))
    assert count_images(pretrain(tmp_path / "cat.tar", tmp_path / "run")) == 4
    (tmp_path / "end.tar").write_bytes(parts[0] + b"rubbish" * 100)
    message = refuse(tmp_path / "end.tar", tmp_path / "run2")
    assert "end.tar has bytes behind its end mark that are no tar file" in message


def test_what_has_no_image_is_named_and_counted(tmp_path, caplog, capfd):
    members = number(
        {"0.jpg": 0, "1.jpg": 1, "1.json": b"{}", "2.json": b"{}", "3.jpg": (SYMLINK, "/etc/3.jpg"), "0.seg.png": 9}
    )
    write_members(tmp_path / "a.tar", members)
    pretrain(tmp_path / "a.tar", tmp_path / "run")
    assert "the sample '2' has no image, only json" in caplog.text
    assert "3.jpg (a link to /etc/3.jpg, which is not in the archive)" in caplog.text
    said = capfd.readouterr().out
    assert "the sample '2' has no image" in said  # again at the end
    assert said.count("1 seg.png beside an image, under its name (--image_column reads such)") == 2
    message = refuse(tmp_path / "a.tar", tmp_path / "run2", "--max_unreadable 0")
    assert "more than 0 of 4 images cannot be read" in message and "sample '2'" in message
    members = {f"{index}.json": b"{}" for index in range(12)} | number({"0.jpg": 0, "b.jpg": 1})
    write_members(tmp_path / "b.tar", members)
    assert "more than 10 of 13 images cannot be read" in refuse(tmp_path / "b.tar", tmp_path / "run3")


REFUSED = {
    "twice": "has two members '0.jpg'.*keep the archives apart, or join them with cat",
    "sparse": "'hole.jpg' is stored as a sparse file. Write the tar without -S",
    "volume": "a.tar is a later volume of a tar file .tar -M., in which '0.jpg' goes on. Unpack all volumes",
    "gzip": "a.tar is not a whole, uncompressed tar file but a compressed one .decompress it with gunzip",
    "pointer": "a.tar is not a whole, uncompressed tar file: a pointer of Git LFS: fetch the file itself by",
    "none": "no sample has an image. the sample '0' has no image, only txt",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_tars_that_are_refused(kind, tmp_path):
    path = tmp_path / "a.tar"
    if kind == "twice":
        with tarfile.open(path, "w") as tar:
            for _ in range(2):
                tar.addfile(tarfile.TarInfo("0.jpg"))
    elif kind == "sparse":
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            member = tarfile.TarInfo("GNUSparseFile.0/hole.jpg")
            names = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "hole.jpg"}
            member.pax_headers = {**names, "GNU.sparse.size": "4096", "GNU.sparse.map": "4096,0"}
            tar.addfile(member)
    elif kind == "volume":
        with tarfile.open(path, "w") as tar:
            rest, whole = tarfile.TarInfo("0.jpg"), tarfile.TarInfo("1.jpg")
            rest.type, whole.size = b"M", len(picture(1))
            tar.addfile(rest)
            tar.addfile(whole, BytesIO(picture(1)))
    elif kind == "gzip":
        with tarfile.open(path, "w:gz"):
            pass
    elif kind == "pointer":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    else:
        write_members(path, {"0.txt": b"a", "1.txt": b"b"})
    assert re.search(REFUSED[kind], refuse(path, tmp_path / "run"), re.DOTALL)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.zst", "a.tar.lz4"])
def test_compressed_tars_are_refused_also_in_a_folder(name, tmp_path):
    write_members(tmp_path / "b.tar", number({"0.jpg": 0, "1.jpg": 1}))
    (tmp_path / name).write_bytes(b"")
    for data in (tmp_path, tmp_path / name):
        assert f"{name}': a compressed tar file cannot be read in parts" in refuse(data, tmp_path / "run")


def test_shards_that_belong_to_no_split_are_not_left_out(tmp_path):
    for name in ("train-00000", "more"):
        table = pa.table({"image": [{"bytes": picture(index), "path": None} for index in range(4)]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    for streaming in ("", "--streaming"):
        message = refuse(tmp_path, tmp_path / "run", streaming)
        assert "has 2 shards, of which 1 belong to no split" in message and "more.parquet" in message
    assert count_images(pretrain(f"{tmp_path}/*.parquet", tmp_path / "run", "--streaming")) == 8
