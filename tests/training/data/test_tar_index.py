# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which members of a tar file are its images, and which label each has."""

import zipfile
from importlib.util import find_spec
from tarfile import LNKTYPE, SYMTYPE

import numpy as np
import pytest

from modeling_esvit.images.data_errors import DataOptionError
from tests.helpers.shard_server import write_members
from training.data.shard_files import ShardError, ShardFile
from training.data.shard_stream import StreamOptions
from training.data.sources import open_source
from training.data.tar_index import BESIDE, UNREAD_LABELS, index_tar, number_labels


def index(path, members, image=None, label=None):
    return index_tar(ShardFile.locate(write_members(path, members), 0), image, label)


def labels(found):
    return {sample.name: sample.label for sample in found.samples}


def test_each_image_has_the_label_of_its_sample(tmp_path):
    members = {"0.left.jpg": b"a", "0.right.jpg": b"b", "0.cls": b"7\n", "I.1.jpg": b"c", "I.2.jpg": b"d"}
    found = index(tmp_path / "a.tar", members | {"I.1.cls": b"1", "I.2.cls": b"2"})
    assert labels(found) == {"0.left.jpg": "7", "0.right.jpg": "7", "I.1.jpg": "1", "I.2.jpg": "2"}
    assert [sample.size for sample in found.samples] == [1] * 4 and not found.without_image


def test_an_extension_can_be_chosen(tmp_path):
    members = {"0.jpg": b"a", "0.seg.png": b"b", "0.kind": b"dog", "1.jpg": b"c"}
    found = index(tmp_path / "a.tar", members)
    assert [*labels(found)] == ["0.jpg", "1.jpg"] and found.left_out == {f"seg.png {BESIDE}": 1}
    found = index(tmp_path / "a.tar", members, image="SEG.png", label="KIND")
    assert labels(found) == {"0.seg.png": "dog"} and list(found.without_image) == ["1"] and not found.left_out
    for options, said in ({"image": "tif"}, "has no tif"), ({"label": "cls"}, "no sample has a label 'cls'"):
        with pytest.raises(DataOptionError, match=said):
            index(tmp_path / "a.tar", members, **options)


def test_images_that_are_not_chosen_are_counted(tmp_path):
    members = {"photo.jpg": b"a", "photo.1.jpg": b"b", "photo.png": b"c"}
    found = index(tmp_path / "a.tar", members, image="jpg")
    assert [*labels(found)] == ["photo.jpg"] and found.left_out == {f"1.jpg {BESIDE}": 1}
    members = {f"img.{number}.{kind}": b"a" for number in ("0001", "0002") for kind in ("jpg", "seg.png")}
    found = index(tmp_path / "b.tar", members)
    assert [*labels(found)] == ["img.0001.jpg", "img.0002.jpg"] and found.left_out == {f"seg.png {BESIDE}": 2}
    found = index(tmp_path / "b.tar", members, image="seg.png")
    assert [*labels(found)] == ["img.0001.seg.png", "img.0002.seg.png"] and not found.left_out


def test_links_lead_to_hidden_members_and_through_folders(tmp_path):
    """As git-annex and deduplicating archivers write them."""
    members = {
        ".store/x": b"a",
        ".store/y": b"no image",
        "a.jpg": (SYMTYPE, ".store/x"),
        "b.jpg": (LNKTYPE, ".store/x"),
    }
    members |= {"v/c.jpg": b"c", "latest": (SYMTYPE, "v"), "w/d.jpg": (SYMTYPE, "../latest/c.jpg")}
    members |= {"e.jpg": (SYMTYPE, "f.jpg"), "f.jpg": (SYMTYPE, "e.jpg"), "/g.jpg": (SYMTYPE, "/v/none.jpg")}
    found = index(tmp_path / "a.tar", members)
    offsets = {sample.name: sample.offset for sample in found.samples}
    assert offsets["a.jpg"] == offsets["b.jpg"] != offsets["v/c.jpg"] == offsets["w/d.jpg"] and len(offsets) == 4
    assert found.left_out == {"hidden files": 1, "folders linked to again": 1}
    assert [text.partition(" ")[0] for text in found.without_image.values()] == ["e.jpg", "f.jpg", "/g.jpg"]


def test_labels_that_are_links(tmp_path):
    members = {"a.jpg": b"a", "a.cls": (SYMTYPE, "lab.txt"), "lab.txt": b"7", "b.jpg": b"b", "b.cls": b"x" * 1025}
    found = index(tmp_path / "a.tar", members | {"c.jpg": b"c", "c.cls": (SYMTYPE, "none.txt")})
    assert labels(found) == {"a.jpg": "7", "b.jpg": "", "c.jpg": ""} and found.left_out == {UNREAD_LABELS: 2, ".txt": 1}


def test_annotations_are_no_samples(tmp_path):
    """Those of another folder are counted by kind; files as images have beside them stand for one that is missing."""
    members = {f"images/{number}.{kind}": b"0" for number in range(12) for kind in ("jpg", "cls", "json")}
    others = {f"labels/{number}.txt": b"0" for number in range(12)} | {"README": b""}
    found = index(tmp_path / "a.tar", members | others)
    assert len(found.samples) == 12 and not found.without_image
    assert found.left_out == {".txt": 12, "files without an extension": 1}
    for name in ("x.cls", "x.json"):
        found = index(tmp_path / "a.tar", members | others | {name: b""})
        assert found.without_image == {"x": f"the sample 'x' has no image, only {name[2:]}."}


def test_copies_of_notebooks_and_of_systems_are_counted(tmp_path):
    names = ("a/.ipynb_checkpoints/0-checkpoint.jpg", "__MACOSX/a/0.jpg", "./a/._0.jpg", ".DS_Store", "../b/1.jpg")
    found = index(tmp_path / "a.tar", {"./a/0.jpg": b"a"} | dict.fromkeys(names, b"b"))
    assert [*labels(found)] == ["a/0.jpg", "../b/1.jpg"] and found.left_out == {"hidden files": 4}


def test_what_windows_and_phones_write(tmp_path):
    """A mark of UTF-8 before a label is none of it; photographs without their plugin are named with what to do."""
    members = {"0.jpg": b"a", "0.cls": b"\xef\xbb\xbf3\r\n", "1.jpg": b"b", "1.cls": b"4", "2.heic": b"c"}
    found = index(tmp_path / "a.tar", members)
    assert labels(found) == {"0.jpg": "3", "1.jpg": "4"}
    if find_spec("pillow_heif") is None:
        assert found.without_image == {"2": "the sample '2' has no image, only heic (pip install pillow-heif)."}
    with zipfile.ZipFile(tmp_path / "b.tar", "w") as archive:
        archive.writestr("0.jpg", b"a")
    with pytest.raises(ShardError, match="not a whole, uncompressed tar file but a compressed one .*with unzip"):
        index_tar(ShardFile.locate(str(tmp_path / "b.tar"), 0), None, None)


def test_labels_that_all_are_integers_have_no_names():
    assert number_labels([["3", "", "-1"], ["007"]]) == ({"3": 3, "-1": -1, "007": 7}, None)
    assert number_labels([["3", "dog"], ["3"]]) == ({"3": 0, "dog": 1}, ["3", "dog"])
    assert number_labels([["1" * 25], [""]]) == ({"1" * 25: 0}, ["1" * 25])


def test_fields_of_json_are_no_class(tmp_path):
    """Each text was a class, so that those with a caption had as many classes as images."""
    fields = {f"{number}.json": b'{"label": 0, "caption": "%d"}' % number for number in range(2)}
    write_members(tmp_path / "a.tar", {"0.jpg": b"a", "1.jpg": b"b", **fields})
    with pytest.raises(DataOptionError, match=r'holds fields, \{"label": 0, "caption": "0"\}, and not the class alone'):
        open_source(tmp_path / "a.tar", label_column="json")
    assert len(open_source(tmp_path / "a.tar")) == 2


def test_archives_in_an_archive_are_to_be_unpacked(tmp_path):
    found = index(tmp_path / "a.tar", {"0.jpg": b"a", "inner.tar": b"", "more.zip": b""})
    assert found.left_out.describe() == "2 archives in the archive: unpack them"
    with pytest.raises(DataOptionError, match=r"the sample 'inner' has no image, only tar \(unpack it\)"):
        index(tmp_path / "b.tar", {"inner.tar": b""})


def test_tars_with_integers_and_tars_with_words_are_not_read_as_one(tmp_path):
    for name, own in {"a.tar": (b"0", b"1"), "b.tar": (b"cat", b"dog")}.items():
        write_members(tmp_path / name, {f"{label.decode()}.{kind}": label for label in own for kind in ("jpg", "cls")})
    message = r"integers as labels \(0, 1\) and others words \(cat, dog\): write all of them in one way"
    with pytest.raises(DataOptionError, match=message):
        open_source(f"{tmp_path}/*.tar")
    assert len(open_source(f"{tmp_path}/*.tar", stream=StreamOptions(labels=False))) == 4  # as pretraining reads them


def test_damaged_headers_are_named_or_do_no_harm(tmp_path):
    """Bytes of headers are changed at random: an index of whole images comes out, or an error that names the file."""
    path = write_members(tmp_path / "a.tar", {f"{'x' * 120}/{index}.jpg": bytes(700) for index in range(3)})
    content, generator = bytearray(open(path, "rb").read()), np.random.default_rng(0)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(content)
        for place in generator.integers(0, 2048, 2):
            damaged[place] = generator.integers(256)
        (tmp_path / "b.tar").write_bytes(damaged)
        try:
            found = index_tar(ShardFile.locate(str(tmp_path / "b.tar"), 0), None, None)
            assert all(sample.offset + sample.size <= len(content) for sample in found.samples)
            outcomes.add("index")
        except (ShardError, DataOptionError) as error:
            assert "b.tar" in str(error)
            outcomes.add("error")
    assert outcomes == {"index", "error"}
