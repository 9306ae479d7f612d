# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which files of a folder become rows, in pretraining and in `embed` alike, and that none is lost silently."""

import contextlib
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_esvit.embed.inputs import NoImagesError, find_images
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.images.decoding import decode
from modeling_esvit.images.folders import BESIDE_SHARDS, MATCHED_FOLDERS
from tests.helpers.shard_server import picture, write_members
from training.data.sources import open_source


LINKED = "shards linked to again"
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def write(file: Path, count: int = 2) -> None:
    """Writes a shard of so many images, or an image."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pictures = [picture(number) for number in range(count)]
    if file.suffix.lower() == ".parquet":
        cells = [{"bytes": content, "path": None} for content in pictures]
        pq.write_table(pa.table({"image": pa.array(cells, IMAGE)}), file)
    elif file.suffix.lower() == ".tar":
        write_members(file, {f"{number}.png": content for number, content in enumerate(pictures)})
    elif file.suffix.lower() == ".zip":
        with zipfile.ZipFile(file, "w") as archive:
            for number, content in enumerate(pictures):
                archive.writestr(f"{number}.png", content)
    else:
        file.write_bytes(picture(0))


def open_by_all(data) -> list:
    """Opens data as pretraining does, and as `embed` does."""
    return [open_source(str(data)), find_images(str(data))]


def count_by_all(data) -> int:
    """Returns the number of images, of which all programs find the same."""
    counts = {len(images) for images in open_by_all(data)}
    assert len(counts) == 1
    return counts.pop()


def refuse(open_it, data) -> EsViTError:
    """Returns the error with which data are refused."""
    with pytest.raises(EsViTError) as refused:
        open_it(str(data))
    return refused.value


def refuse_by_all(data) -> str:
    """Returns the one message with which all programs refuse data."""
    messages = []
    for open_it in (open_source, lambda name: open_source(name, streaming=True), find_images):
        messages.append(str(refuse(open_it, data)))
    assert len(set(messages)) == 1
    return messages[0]


def test_a_saved_data_set_has_files_of_its_own_alone(tmp_path):
    for name in ("private", "data"):
        datasets.Dataset.from_dict({"image": [{"bytes": picture(0), "path": None}]}).save_to_disk(tmp_path / name)
    state = tmp_path / "data" / "state.json"
    record = json.loads(state.read_text())
    for files, said in (
        ([{"filename": f"../private/{record['_data_files'][0]['filename']}"}], "which is no file of the data set"),
        ([{"filename": f"{tmp_path}/private/x.arrow"}], "which is no file of the data set"),
        *((damaged, "is damaged: it does not name the files") for damaged in ([{}], 5, [{"filename": 5}])),
    ):
        state.write_text(json.dumps({**record, "_data_files": files}))
        for open_it in (open_source, find_images):
            with pytest.raises(DataOptionError, match=f"{state} .*{said}"):
                open_it(str(tmp_path / "data"))


def test_a_damaged_record_of_a_saved_data_set_is_said_in_a_line(tmp_path):
    datasets.Dataset.from_dict({"image": [{"bytes": picture(0), "path": None}]}).save_to_disk(tmp_path / "data")
    for file in ("state.json", "dataset_info.json"):
        whole = (tmp_path / "data" / file).read_text()
        for field in ("features", "_split", "_format_type"):
            (tmp_path / "data" / file).write_text(json.dumps({**json.loads(whole), field: 5}))
            for open_it in (open_source, find_images):
                with contextlib.suppress(EsViTError):
                    open_it(str(tmp_path / "data"))
        (tmp_path / "data" / file).write_text(whole)


@pytest.mark.parametrize("kind", ["parquet", "zip", "tar"])
def test_a_pipe_is_no_file_of_rows(kind, tmp_path):
    """A library would wait for ever for what comes through it."""
    os.mkfifo(tmp_path / f"train.{kind}")
    data = tmp_path if kind == "zip" else tmp_path / f"*.{kind}"
    for open_it in (open_source, find_images) if kind != "tar" else (open_source,):
        with pytest.raises(EsViTError, match="is no regular file, but a pipe or a device"):
            open_it(str(data))


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_a_shard_comes_once_whatever_links_lead_to_it(kind, tmp_path):
    write(tmp_path / "files" / f"b.{kind}")
    (tmp_path / "files" / f"a-latest.{kind}").symlink_to(f"b.{kind}")
    (tmp_path / "loop").mkdir()
    write(tmp_path / "loop" / "v2" / f"b.{kind}")
    (tmp_path / "loop" / "latest").symlink_to("v2")
    (tmp_path / "loop" / "again").symlink_to(".")
    for data, left_out in {
        "files": {LINKED: 1},
        f"files/*.{kind}": {LINKED: 1},
        f"loop/*/*.{kind}": {LINKED: 1},
        f"loop/**/*.{kind}": {"folders linked to again": 2},
    }.items():
        found = [open_source(tmp_path / data), open_source(tmp_path / data, streaming=True)]
        found += [find_images(str(tmp_path / data))] if kind == "parquet" else []
        assert [len(images) for images in found] == [2] * len(found)
        assert [images.left_out for images in found] == [left_out] * len(found)
    stream = open_source(tmp_path / "files", streaming=True)
    assert [shard.title for shard in stream.shards] == [f"b.{kind}"]


def test_a_folder_with_shards_of_no_split_is_refused_by_all(tmp_path):
    write(tmp_path / "train.parquet")
    write(tmp_path / "more.parquet", 3)
    (tmp_path / "README.md").write_text("# my data\n")
    assert "has 2 shards, of which 1 belong to no split" in refuse_by_all(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: mit\nconfigs:\n- config_name: default\n---\n")
    assert "more.parquet. Name the files to read, by a glob" in refuse_by_all(tmp_path)
    assert count_by_all(f"{tmp_path}/*.parquet") == 5
    configuration = "configs:\n- config_name: default\n  data_files: train.parquet\n"
    (tmp_path / "README.md").write_text(f"---\n{configuration}---\n")
    assert count_by_all(tmp_path) == 2
    (tmp_path / "README.md").unlink()
    (tmp_path / "more.parquet").unlink()
    write(tmp_path / "more.tar")
    assert "belong to no split" in refuse_by_all(tmp_path)


def test_zip_files_of_no_split_and_members_that_are_no_images(tmp_path):
    write(tmp_path / "train.zip", 1)
    write(tmp_path / "more.zip")
    assert "more.zip. Unpack them, or give them the name of a split, such as train-00000.zip" in refuse_by_all(tmp_path)
    (tmp_path / "more.zip").unlink()
    with zipfile.ZipFile(tmp_path / "train.zip", "a") as archive:
        for name in ("b.heic", "notes.txt", "__MACOSX/._0.png", "folder/"):
            archive.writestr(name, b"")
    for images in open_by_all(tmp_path):
        assert len(images) == 1 and images.left_out == {".heic": 1, ".txt": 1, "hidden files": 1}


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (("train.tar", "train.zip"), "tar"),
        (("data/a.tar", "b.zip"), "tar"),
        (("train.parquet", "train.tar"), "parquet"),
        (("a.parquet", "train.zip"), "parquet"),
    ],
)
def test_the_advice_for_files_of_several_kinds_can_be_followed(files, kind, tmp_path):
    """A split has files of one kind, and one of another kind stays without a split under whatever name."""
    for name in files:
        write(tmp_path / name)
    with pytest.raises(DataOptionError, match="belong to no split") as refused:
        open_source(tmp_path)
    advice = re.search(rf"files are not read as one. Name .*, by a glob, as (.*\.{kind})\.$", str(refused.value))
    assert len(open_source(advice[1])) == 2


def test_splits_of_different_kinds_are_refused_with_what_to_do(tmp_path):
    write(tmp_path / "train.parquet")
    write(tmp_path / "test.zip")
    assert "are not read together: name those of a split, by a glob, and unpack zip files" in refuse_by_all(tmp_path)


def test_names_of_splits_in_capitals_are_refused(tmp_path):
    """`datasets` knows none of them, and the test images were trained on."""
    for name in ("Train-0.parquet", "Train-1.parquet", "TEST.parquet"):
        write(tmp_path / name)
    assert "Train-0.parquet in the split 'train': names of splits are known in lower case" in refuse_by_all(tmp_path)
    assert count_by_all(f"{tmp_path}/Train*.parquet") == 4
    (tmp_path / "TEST.parquet").rename(tmp_path / "Latest.parquet")
    assert count_by_all(tmp_path) == 6
    (tmp_path / "deep").mkdir()
    for name in ("Train", "Validation"):
        write(tmp_path / "deep" / name / "a.zip")
    assert "deep/Validation/a.zip in the split" in str(refuse(open_source, tmp_path / "deep"))


def test_files_deeper_in_a_folder_are_not_left_out_either(tmp_path):
    write(tmp_path / "train" / "a.parquet")
    write(tmp_path / "more" / "b.parquet")
    with pytest.raises(EsViTError, match="1 belong to no split: .*b.parquet"):
        find_images(str(tmp_path))


def test_a_first_file_without_rows_is_read(tmp_path):
    write(tmp_path / "train-0.parquet", 0)
    write(tmp_path / "train-1.parquet")
    assert count_by_all(tmp_path) == count_by_all(f"{tmp_path}/*.parquet") == 2


@pytest.mark.parametrize("name", ["a.tar", "train-0.parquet", "a.png"])
def test_hidden_copies_of_files_are_no_shards(name, tmp_path):
    write(tmp_path / name, 1)
    copy = tmp_path / f"._{'meta.parquet' if name == 'a.png' else name}"
    copy.write_bytes(b"of macOS")
    assert len(open_source(tmp_path)) == 1
    assert name == "a.tar" or len(find_images(str(tmp_path))) == 1


def test_files_without_rows_are_said_to_have_none(tmp_path):
    write(tmp_path / "a.parquet", 0)
    for open_it in (open_source, find_images):
        assert str(refuse(open_it, tmp_path)).endswith("has no rows.")
        assert str(refuse(open_it, tmp_path / "a.parquet")).endswith("a.parquet' has no rows.")


@pytest.mark.parametrize("kind", ["PARQUET", "Zip", "TAR"])
def test_endings_in_capitals_are_the_same_endings(kind, tmp_path):
    """Windows and cameras write such names."""
    write(tmp_path / f"A.{kind}")
    write(tmp_path / f"b.{kind.lower()}", 1)
    (tmp_path / "README.md").write_text("# my data\n")
    found = [open_source(tmp_path)] if kind == "TAR" else open_by_all(tmp_path)
    found += [] if kind == "Zip" else [open_source(tmp_path, streaming=True)]
    for data in [] if kind == "Zip" else [f"A.{kind}", f"[A].{kind}"]:
        assert len(open_source(tmp_path / data)) == len(open_source(tmp_path / data, streaming=True)) == 2
        assert kind == "TAR" or len(find_images(str(tmp_path / data))) == 2
    assert [(len(images), images.left_out) for images in found] == [(3, {})] * len(found)
    write(tmp_path / f"more.{kind}")
    (tmp_path / f"b.{kind.lower()}").rename(tmp_path / f"train.{kind}")
    if kind != "TAR":
        assert "2 belong to no split" in str(refuse(open_source, tmp_path))


def test_compressed_tars_in_capitals_and_copies_of_parquet_files(tmp_path):
    """`datasets` takes `a.parquet.bak` for a parquet file, too, and would read its rows once more."""
    write(tmp_path / "rows" / "a.parquet")
    for copy in ("a.parquet.bak", "b.parquet.gzip"):
        shutil.copy(tmp_path / "rows" / "a.parquet", tmp_path / "rows" / copy)
    for images in open_by_all(tmp_path / "rows"):
        assert len(images) == 2 and images.left_out == {".parquet.bak": 1, ".parquet.gzip": 1}
    (tmp_path / "rows" / "a.parquet").unlink()
    assert "1 .parquet.gzip: if pandas wrote it, rename it to .parquet" in str(refuse(open_source, tmp_path / "rows"))
    (tmp_path / "A.TAR.GZ").write_bytes(b"")
    assert "Decompress it" in str(refuse(open_source, tmp_path / "A.TAR.GZ"))


@pytest.mark.parametrize("name", ["photos.tar", "photos.parquet", "photos.tar.gz"])
def test_a_folder_may_have_the_name_of_a_shard(name, tmp_path):
    write(tmp_path / name / "a.png")
    assert count_by_all(tmp_path / name) == 1


def test_a_folder_of_parquet_files_that_has_the_name_of_one(tmp_path):
    """Spark writes such folders."""
    write(tmp_path / "images.parquet" / "part-0.parquet")
    write(tmp_path / "b.parquet", 3)
    assert count_by_all(tmp_path / "images.parquet") == 2
    assert len(open_source(tmp_path / "images.parquet", streaming=True)) == 2
    for images in open_by_all(f"{tmp_path}/*.parquet"):
        assert len(images) == 3 and images.left_out == {MATCHED_FOLDERS: 1}
    with pytest.raises(EsViTError, match="no file matches"):
        open_source(f"{tmp_path}/im*.parquet")
    write(tmp_path / "tars" / "a.tar")
    (tmp_path / "tars" / "b.tar").mkdir()
    assert len(open_source(tmp_path / "tars")) == 2


@pytest.mark.parametrize(
    "name, content",
    [
        *(("state.json", text) for text in ("{}", "no JSON", '["_data_files"]', '{"_data_files": []}')),
        *(("dataset_dict.json", "{}"), ("dataset_info.json", "{}")),
    ],
)
def test_photographs_beside_a_record_of_another_program(name, content, tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / name).write_text(content)
    assert count_by_all(tmp_path) == 1


def test_splits_of_a_folder(tmp_path):
    for split, count in {"train": 2, "test": 1}.items():
        write(tmp_path / "shards" / f"{split}.parquet", count)
        for number in range(count):
            write(tmp_path / "photographs" / split / f"{number}.png")
    rows = datasets.Dataset.from_dict({"image": [{"bytes": picture(0), "path": None}]})
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "saved")
    names = {"shards": "shards:test[0]", "photographs": "photographs/test/0.png", "saved": "saved:test[0]"}
    for name, first in names.items():
        found = find_images(f"{tmp_path}/{name}:test")
        assert [found.name(index) for index in range(len(found))] == [f"{tmp_path}/{first}"]
        assert len(open_source(tmp_path / name, split="test")) == 1
        with pytest.raises(EsViTError, match="val"):
            find_images(f"{tmp_path}/{name}:val")
    with pytest.raises(NoImagesError, match="'.*photographs/val' is no folder. A split of a folder of images is"):
        find_images(f"{tmp_path}/photographs:val")


def test_rows_of_a_split_open_the_files_beside_them(tmp_path):
    write(tmp_path / "0.png")
    table = pa.table({"image": pa.array([{"bytes": None, "path": "0.png"}], IMAGE)})
    pq.write_table(table, tmp_path / "test.parquet")
    found = find_images(f"{tmp_path}:test")
    assert decode(found.read(0)).size == (12, 12)


def test_names_in_rows_begin_beside_the_first_file_in_all_programs(tmp_path):
    write(tmp_path / "data" / "0.png")
    table = pa.table({"image": pa.array([{"bytes": None, "path": "0.png"}], IMAGE)})
    pq.write_table(table, tmp_path / "data" / "train.parquet")
    assert [decode(images.read(0)).size for images in open_by_all(tmp_path)] == [(12, 12)] * 2


def test_what_lies_beside_parquet_files_is_counted(tmp_path):
    for name in ("train-0.parquet", "photographs.zip", "data/more.zip", "deep/more.parquet", "a.heic", "._b.png"):
        write(tmp_path / name)
    (tmp_path / "README.md").write_text("# my data")
    beside = {BESIDE_SHARDS: 2, ".parquet": 1, ".heic": 1, "hidden files": 1}
    found = [*open_by_all(tmp_path), open_source(tmp_path, streaming=True)]
    assert [(len(images), images.left_out) for images in found] == [(2, beside)] * 3
    write(tmp_path / "train-1.zip")
    assert "has zip files beside others in the split 'train'" in refuse_by_all(tmp_path)


@pytest.mark.parametrize("name", ["train-0.parquet", "data/test.parquet", "train.zip", "a.png"])
def test_wildcards_in_the_name_of_a_folder_are_part_of_it(name, tmp_path):
    folder = tmp_path / "[2024] {a,b} ph*tos?"
    write(folder / name)
    split = "test" if "test" in name else None
    assert len(open_source(folder, split=split)) == len(find_images(f"{folder}:test" if split else str(folder)))
    pattern = f"{folder}/**/*{folder.joinpath(name).suffix}"
    opened = find_images(pattern) if name == "a.png" else open_source(folder, split=split)
    assert len(opened) == (1 if name == "a.png" else 2)
    if name.endswith(".parquet"):
        assert len(open_source(folder, split=split, streaming=True)) == count_by_all(pattern) == 2
        (folder / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: x.parquet\n---\n")
        assert "wildcards in its name, where `datasets` does not find" in refuse_by_all(folder)


@pytest.mark.parametrize("name", ["folder", "file", "pattern", "saved"])
def test_paths_that_datasets_takes_for_chains_are_refused_by_name(name, tmp_path):
    folder = tmp_path / "2024::05"
    rows = datasets.Dataset.from_dict({"image": [{"bytes": picture(0), "path": None}]})
    rows.save_to_disk(tmp_path / "saved")
    if name == "saved":
        (tmp_path / "saved").rename(folder)
    else:
        folder.mkdir()
        pq.write_table(rows.data.table, tmp_path / "train.parquet")
        (tmp_path / "train.parquet").rename(folder / "train.parquet")
    data = str(folder / {"file": "train.parquet", "pattern": "*.parquet"}.get(name, ""))
    for read in (open_source, find_images):
        with pytest.raises(DataOptionError, match="2024::05.* has '::' in its path, .*: rename the file or folder"):
            read(data)
