# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Data as strangers have it, through the commands that a user types: tars, columns, classes, URLs and stores.

What each test stands for was reported by users of other projects; the comments name the reports.
"""

import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import examples.finetune as finetune
import training.knn as knn
import training.linear_features as linear_features
import training.linear_probe as linear_probe
import training.transfer as transfer
from modeling_esvit.embed.command import main as embed
from modeling_esvit.embed.files import load_features
from modeling_esvit.images import http_client
from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.images.decoding import Record, UnreadableImageError, decode
from modeling_esvit.images.http_client import CERTIFICATES
from tests.helpers.commands import type_arguments
from tests.helpers.shard_server import picture, serve, write_members
from tests.helpers.tiny_runs import tiny, write_images, write_model
from training.data.http_ranges import StatusError
from training.data.shard_files import ChangedShardError, ShardError, ShardFile, retry
from training.data.sources import open_source
from training.data.unreadable import TooManyUnreadableImagesError
from training.options.command import run_command
from training.pretrain import main


TINY = "--batch_size 2 --max_steps 1 --epochs 1 --warmup_epochs 0 --warmup_teacher_temp_epochs 0"


def pretrain(data, output: Path, changes: str = "") -> Path:
    """Takes a step on data, as the command does. What stands in its way ends it with a line."""
    main(tiny(data, output, f"{TINY} {changes}"))
    return output


def refuse(data, output: Path, changes: str = "") -> str:
    """Returns the line that the command ends with."""
    with pytest.raises(SystemExit) as end:
        pretrain(data, output, changes)
    message = str(end.value.code)
    assert "Traceback" not in message
    return message


def count_images(output: Path) -> int:
    """Returns the number of images that a run began with."""
    return json.loads((output / "data.json").read_text())["identity"]["images"]


def number(members: dict[str, bytes]) -> dict[str, bytes]:
    """Returns members with pictures in place of numbers."""
    return {name: picture(content) if isinstance(content, int) else content for name, content in members.items()}


# -- tars --------------------------------------------------------------------------------------------------------------

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
    assert said.count("1 seg.png beside the images of their samples (--image_column reads them)") == 2
    message = refuse(tmp_path / "a.tar", tmp_path / "run2", "--max_unreadable 0")
    assert "more than 0 of 4 images cannot be read" in message and "sample '2'" in message
    members = {f"{index}.json": b"{}" for index in range(12)} | number({"0.jpg": 0, "b.jpg": 1})
    write_members(tmp_path / "b.tar", members)
    assert "more than 10 of 13 images cannot be read" in refuse(tmp_path / "b.tar", tmp_path / "run3")


REFUSED = {
    "twice": "has two members '0.jpg'.*keep the archives apart, or join them with cat",
    "sparse": "'hole.jpg' is stored as a sparse file. Write the tar without -S",
    "gzip": "a.tar is not a whole, uncompressed tar file but a compressed one .decompress it with gunzip",
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
    elif kind == "gzip":
        with tarfile.open(path, "w:gz"):
            pass
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


# -- columns -----------------------------------------------------------------------------------------------------------


def make_table(kind: str, count: int = 4) -> pa.Table:
    images, paths = [picture(index) for index in range(count)], [f"img/{index}.png" for index in range(count)]
    both = pa.struct({"bytes": pa.large_binary(), "path": pa.large_string(), "width": pa.int64()})
    rows = {
        "paths": [{"bytes": None, "path": path} for path in paths],
        "path alone": [{"path": path} for path in paths],
        "bytes alone": [{"bytes": image} for image in images],
        "strings": paths,
        "large": pa.array([{"bytes": image, "path": None, "width": 12} for image in images], both),
        "large_binary": pa.array(images, pa.large_binary()),
        "binary_view": pa.array(images, pa.binary_view()),
    }
    return pa.table({"photo": rows[kind]})


@pytest.mark.parametrize("streaming", ["", "--streaming"])
@pytest.mark.parametrize(
    "kind", ["paths", "path alone", "bytes alone", "strings", "large", "large_binary", "binary_view"]
)
def test_columns_of_images(kind, streaming, tmp_path, monkeypatch):
    """Paths are beside the file, wherever the command runs; structs have more fields or fewer."""
    (tmp_path / "data" / "img").mkdir(parents=True)
    for index in range(4):
        (tmp_path / "data" / "img" / f"{index}.png").write_bytes(picture(index))
    pq.write_table(make_table(kind), tmp_path / "data" / "a.parquet")
    column = "--image_column photo" if kind in ("strings", "large_binary", "binary_view") else ""
    changes = f"--max_unreadable 0 {column} {streaming}"
    pretrain(tmp_path / "data" / "a.parquet", tmp_path / "run", changes)


@pytest.mark.parametrize("streaming", ["", "--streaming"])
def test_an_empty_row_group_is_no_end(streaming, tmp_path):
    table = make_table("bytes alone")
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        for part in (table.slice(0, 0), table, table.slice(0, 0), table):
            writer.write_table(part)
    pretrain(tmp_path / "a.parquet", tmp_path / "run", streaming)
    assert count_images(tmp_path / "run") == 8


ODD = {
    "a map": {"meta": pa.array([[("a", 1)]] * 2, pa.map_(pa.string(), pa.int64()))},
    "a categorical": {"label": pa.array(["x", "y"]).dictionary_encode()},
}


@pytest.mark.parametrize("kind", ODD)
def test_columns_beside_the_images_do_not_matter_to_a_stream(kind, tmp_path):
    """datasets issue 5706, pull 6892: types that `datasets` does not know, or did not know."""
    images = [{"bytes": picture(index), "path": None} for index in range(2)]
    pq.write_table(pa.table({"image": images, **ODD[kind]}), tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet", streaming=True)
    assert len(source) == 2 and source.class_names == (["x", "y"] if kind == "a categorical" else None)


def test_a_first_shard_without_labels_does_not_hide_those_of_others(tmp_path):
    """datasets issue 7222: the types of all files were those of the first one, which had nulls alone."""
    write_rows(tmp_path / "a.parquet", [None, None], pa.null())
    write_rows(tmp_path / "b.parquet", ["x", "y"], pa.string())
    source = open_source(f"{tmp_path}/*.parquet", streaming=True)
    assert [record.label for record in source.rows(0, 4)] == [None, None, 0, 1]


def test_lists_of_images_are_refused_with_what_to_do(tmp_path):
    """Roblox/FAI-RL pull 81: rows of several images were all dropped."""
    pq.write_table(pa.table({"images": [[{"bytes": picture(0), "path": None}]] * 2}), tmp_path / "a.parquet")
    for streaming in ("", "--streaming"):
        message = refuse(tmp_path / "a.parquet", tmp_path / "run", streaming)
        assert "images holds lists of images: write a row for each image" in message


def test_embed_reads_parquet_files_by_name(model, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for name in ("a", "b"):
        write_rows(tmp_path / f"{name}.parquet", [0, 1], pa.int64())
    for data, count in ((tmp_path / "a.parquet", 2), (tmp_path / "*.parquet", 4)):
        embed([str(model), str(data), "--output", str(tmp_path / "features.npz"), "--overwrite"])
        assert len(load_features(tmp_path / "features.npz").names) == count
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(SystemExit, match="error: .*parquet' cannot be read: .*Parquet magic bytes not found"):
        embed([str(model), str(tmp_path / "*.parquet"), "--output", str(tmp_path / "other.npz")])


def test_errors_list_the_columns_with_their_types(tmp_path):
    pq.write_table(pa.table({"n": [1], "image": [{"bytes": b"", "path": "a"}], "score": [0.5]}), tmp_path / "a.parquet")
    message = refuse(tmp_path / "a.parquet", tmp_path / "run", "--image_column photo")
    assert "'photo' does not exist" in message
    assert "the columns are n (int64), image (struct of bytes, path), score (float64)" in message


# -- classes -----------------------------------------------------------------------------------------------------------

MAINS = {"knn": knn, "linear_features": linear_features, "linear_probe": linear_probe, "transfer": transfer}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def cifar(tmp_path_factory) -> Path:
    """Two classes of labels, as CIFAR-100 has them, saved to disk: nothing says which is meant."""
    folder = tmp_path_factory.mktemp("cifar") / "saved"
    fine, coarse = datasets.ClassLabel(names=["ant", "bee", "cat", "dog"]), datasets.ClassLabel(names=["a", "b"])
    features = datasets.Features({"img": datasets.Image(), "fine_label": fine, "coarse_label": coarse})

    def make(first: int) -> datasets.Dataset:
        images = [{"bytes": picture(first + index, 32), "path": None} for index in range(24)]
        labels = {"fine_label": [index % 4 for index in range(24)], "coarse_label": [index % 2 for index in range(24)]}
        return datasets.Dataset.from_dict({"img": images, **labels}, features=features)

    datasets.DatasetDict(train=make(0), test=make(100)).save_to_disk(folder)
    return folder


def evaluate(monkeypatch, command: str, model: Path, train, test, output: Path, *more: object) -> dict | str:
    """Returns the result of an evaluation command, or the line that it ends with."""
    output.mkdir(exist_ok=True)
    named = ["--train", train, "--test", test, "--features", output / "features"]
    result = ["--output", output / "result.json"]
    data = f"{str(train).rpartition(':')[0]}:train:test"
    given = {
        "knn": [*named, *result, "--k", 1],
        "linear_features": [*named, *result, "--l2", 0.01],
        "linear_probe": [*named, "--output", output, "--epochs", 1, "--n_last_blocks", 1],
        "transfer": ["--data", f"own={data}", *result],
    }[command]
    type_arguments(monkeypatch, f"training/{command}.py", model, *given, *more)
    try:
        run_command(MAINS[command].main)
    except SystemExit as end:
        if end.code != transfer.INCOMPLETE:
            return str(end.code)
    result = json.loads((output / "result.json").read_text())
    own = result["datasets"]["own"] if command == "transfer" else result
    return own.get("reason") or own


@pytest.mark.parametrize("command", MAINS)
def test_the_label_column_is_chosen_in_every_command(command, model, cifar, tmp_path, monkeypatch):
    """datasets pull 1812, transformers pull 16528. A bank of features is not taken for one with other labels."""
    arguments = (model, f"{cifar}:train", f"{cifar}:test", tmp_path / "out")
    message = evaluate(monkeypatch, command, *arguments)
    assert "label" in message and "fine_label (ClassLabel of 4: ant, bee, cat, ...), coarse_label" in message
    for column, classes in {"fine_label": 4, "coarse_label": 2}.items():
        output = (*arguments[:3], tmp_path / column) if command == "linear_probe" else arguments
        assert evaluate(monkeypatch, command, *output, "--label_column", column)["classes"] == classes


def test_finetuning_has_a_label_column_too(model, cifar, tmp_path):
    given = [str(model), "--data", str(cifar), "--epochs", "1", "--output", str(tmp_path / "classifier")]
    with pytest.raises(ValueError, match=r"--label_column.*fine_label \(ClassLabel of 4"):
        finetune.main(given)
    assert finetune.main([*given, "--label_column", "coarse_label"])["classes"] == 2


def write_rows(path: Path, labels: list, kind: pa.DataType) -> Path:
    path.parent.mkdir(exist_ok=True)
    images = [{"bytes": picture(index, 32), "path": None} for index in range(len(labels))]
    pq.write_table(pa.table({"image": images, "label": pa.array(labels, kind)}), path)
    return path


@pytest.mark.parametrize("command", ["knn", "linear_features", "linear_probe"])
def test_folders_of_numbers_and_integers_are_the_same_classes(command, model, tmp_path, monkeypatch):
    """pytorch/vision issue 714, ImageNetV2 issue 10: the images of a class are the same in both."""
    for index in range(12):
        (tmp_path / "train" / str(index)).mkdir(parents=True)
        (tmp_path / "train" / str(index) / "x.png").write_bytes(picture(index, 32))
    test = write_rows(tmp_path / "test.parquet", list(range(12)), pa.int64())
    result = evaluate(monkeypatch, command, model, tmp_path / "train", test, tmp_path / "out")
    assert result["classes"] == 12 and result["unknown_class_images"] == 0
    if command == "knn":
        assert result["k1_top1"] == 1.0


@pytest.mark.parametrize("command", ["knn", "linear_features", "linear_probe"])
def test_words_and_numbers_are_refused(command, model, tmp_path, monkeypatch):
    train = write_images(tmp_path / "train", 6, classes="ab", side=32)
    for kind, labels, said in ((pa.int64(), [0, 1], "numbers"), (pa.string(), ["x", "y"], "none is in both")):
        test = write_rows(tmp_path / f"{kind}.parquet", labels, kind)
        message = evaluate(monkeypatch, command, model, train, test, tmp_path / "out")
        assert "'a', 'b'" in message and said in message


def test_words_of_tars_are_names_of_classes(model, tmp_path, monkeypatch):
    for name, first in {"train": 0, "test": 2}.items():
        members = {f"{index}.jpg": picture(index, 32) for index in range(first, 4)}
        labels = {f"{index}.cls": [b"ant", b"bee", b"cat", b"dog"][index] for index in range(first, 4)}
        write_members(tmp_path / f"{name}.tar", members | labels)
    result = evaluate(monkeypatch, "knn", model, tmp_path / "train.tar", tmp_path / "test.tar", tmp_path / "out")
    assert (result["k1_top1"], result["classes"], result["test_images"]) == (1.0, 4, 2)


def test_strings_in_streams_are_names_of_classes(model, tmp_path, monkeypatch):
    """The same images as words, and as classes that are numbered otherwise."""
    train = write_rows(tmp_path / "train.parquet", ["dog", "ant", "cat", "bee"], pa.string())
    features = datasets.Features({"image": datasets.Image(), "kind": datasets.ClassLabel(names=["dog", "bee", "ant"])})
    images = [{"bytes": picture(index, 32), "path": None} for index in (0, 1, 3)]
    test = datasets.Dataset.from_dict({"image": images, "kind": [0, 2, 1]}, features=features)
    test.to_parquet(tmp_path / "test.parquet")
    result = evaluate(monkeypatch, "knn", model, train, tmp_path / "test.parquet", tmp_path / "out", "--streaming")
    assert (result["k1_top1"], result["classes"], result["test_images"]) == (1.0, 4, 3)


def write_classes(kind: str, path: Path, names: list[str]) -> Path:
    """Writes an image for each name of a class, as folders, strings, ClassLabel or texts in a tar file."""
    path.mkdir()
    pictures = {name: picture(index, 32) for index, name in enumerate(names)}
    if kind == "folder":
        for name, content in pictures.items():
            (path / name).mkdir()
            (path / name / "x.jpg").write_bytes(content)
        return path
    if kind == "tar":
        labels = {f"{index}.cls": name.encode() for index, name in enumerate(names)}
        images = {f"{index}.jpg": content for index, content in enumerate(pictures.values())}
        write_members(path / "a.tar", images | labels)
        return path / "a.tar"
    if kind == "string":
        return write_rows(path / "a.parquet", names, pa.string())
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {"image": [{"bytes": content, "path": None} for content in pictures.values()], "label": [*range(len(names))]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path / "a.parquet")
    return path / "a.parquet"


@pytest.mark.parametrize("kind", ["folder", "string", "ClassLabel", "tar"])
def test_an_accent_of_its_own_makes_no_other_class(kind, model, tmp_path, monkeypatch):
    """A Mac writes an e and an accent where others write one character."""
    apart, one = "cafe\u0301", "caf\xe9"
    train = write_classes(kind, tmp_path / "train", [apart, "tea"])
    test = write_classes(kind, tmp_path / "test", [one, "tea"])
    for pair in ((train, test), (test, train)):
        result = evaluate(monkeypatch, "knn", model, *pair, tmp_path / "out")
        assert (result["k1_top1"], result["classes"], result["unknown_class_images"]) == (1.0, 2, 0)
    if kind != "tar":  # which fine-tuning does not take
        classes = open_source(train).class_names
        assert finetune.SourceImages(open_source(test), [0], classes, lambda image: image).numbers == [0, 1]
    if kind != "ClassLabel":
        assert open_source(write_classes(kind, tmp_path / "both", [apart, one, "tea"])).class_names == [one, "tea"]


@pytest.mark.parametrize("streaming", [False, True])
def test_shards_that_number_classes_in_another_way_are_refused(streaming, tmp_path):
    """duckdb issue 1214, dataset-viewer issue 3173: the first file decided how all of them are read."""
    (tmp_path / "orders").mkdir()
    for name, names in {"a": ["cat", "dog"], "b": ["dog", "cat"]}.items():
        kind = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        rows = datasets.Dataset.from_dict({"image": [{"bytes": picture(0), "path": None}], "label": [0]}, features=kind)
        rows.to_parquet(tmp_path / "orders" / f"{name}.parquet")
    with pytest.raises(ShardError, match=r"b.parquet numbers the classes in another way.*\['dog', 'cat'\]"):
        open_source(f"{tmp_path}/orders/*.parquet", streaming=streaming)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("column", ["label", "kind"])
def test_integers_and_strings_are_no_labels_of_one_data_set(column, streaming, tmp_path):
    """In place the first file decides, and `datasets` made four classes of these: 0, 1, ant and bee."""
    kinds = {"integers": ([1, 0], pa.int64()), "strings": (["ant", "bee"], pa.string()), "nulls": ([None], pa.string())}
    named = {} if column == "label" else {"label_column": column}
    for first, second in (("integers", "strings"), ("strings", "integers")):
        for number, kind in enumerate((first, "nulls" if first == "strings" else first, second)):
            path = write_rows(tmp_path / first / f"train-{number}.parquet", *kinds[kind])
            table = pq.read_table(path)
            pq.write_table(table.rename_columns(["image", column]), path)
        for data in (tmp_path / first, tmp_path / first / "*.parquet"):
            with pytest.raises(
                ShardError, match=f"'{column}' of .*train-2.parquet holds .*, and that .* {first}: write"
            ):
                open_source(data, streaming=streaming, **named)


def test_a_label_that_no_class_has_is_named(model, tmp_path, monkeypatch):
    """One shard names its classes, and another has bare numbers beyond them."""
    named = write_classes("ClassLabel", tmp_path / "named", ["x", "y"])
    (tmp_path / "train").mkdir()
    shutil.copy(named, tmp_path / "train" / "train-0.parquet")
    write_rows(tmp_path / "train" / "train-1.parquet", [1, 5], pa.int64())
    message = evaluate(monkeypatch, "knn", model, tmp_path / "train", named, tmp_path / "out", "--streaming")
    assert "row 1 has the label 5, and the classes are 0 .. 1: x, y. Write all labels" in message


@pytest.mark.parametrize("streaming", [[], ["--streaming"]])
def test_a_label_beyond_int64_is_named(streaming, model, tmp_path, monkeypatch):
    train = write_rows(tmp_path / "train.parquet", [1, 2**63 + 5], pa.uint64())
    test = write_rows(tmp_path / "test.parquet", [1, 2], pa.uint64())
    message = evaluate(monkeypatch, "knn", model, train, test, tmp_path / "out", *streaming)
    assert "the column 'label' holds the label 9223372036854775813, and 9223372036854775807 is the largest" in message
    small = write_rows(tmp_path / "small.parquet", [2, 1], pa.uint64())
    assert evaluate(monkeypatch, "knn", model, small, test, tmp_path / "out", *streaming)["classes"] == 2


def test_a_mask_called_label_is_no_class(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Array2D((1, 2), "int32")})
    rows = {"image": [{"bytes": picture(0), "path": None}], "label": [[[0, 1]]]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "masks")
    source = open_source(tmp_path / "masks")
    assert not source.has_labels and source.read(0).label is None
    with pytest.raises(DataOptionError, match=r"label_column 'label' holds Array2D.*; labels are integers"):
        open_source(tmp_path / "masks", label_column="label")


# -- what is left out, at the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["knn", *(pytest.param(each, marks=pytest.mark.slow) for each in ("linear_features", "linear_probe"))],
)
def test_evaluations_say_at_the_end_what_was_left_out(command, model, tmp_path, monkeypatch, caplog):
    """orange3-imageanalytics issue 51, stylize-datasets issue 12: where it is not lost above thousands of lines."""
    train = write_images(tmp_path / "train", 6, classes="ab", side=32)
    test = write_images(tmp_path / "test", 4, classes="ab", side=32)
    for folder, name in ((train, "phone.heic"), (test, "broken.png")):
        (folder / "a" / name).write_bytes(b"no image")
    tables = []
    monkeypatch.setattr(f"training.{command}.make_table", lambda result: tables.append(len(caplog.records)) or "")
    evaluate(monkeypatch, command, model, train, test, tmp_path / "out")
    said = [record.getMessage() for record in caplog.records]
    expected = f"Not read in {train}: 1 .heic: pip install pillow-heif."
    assert all(any(expected in line for line in part) for part in (said[: tables[0]], said[tables[0] :]))
    assert sum("1 unreadable images were skipped:" in line for line in said) == 1  # once, and last
    assert "broken.png: not an image" in said[-1]


@pytest.mark.slow
def test_transfer_notes_what_was_left_out(model, tmp_path, monkeypatch):
    for split, count in {"train": 24, "test": 6}.items():
        write_images(tmp_path / "data" / split, count, classes="ab", side=32)
    (tmp_path / "data" / "train" / "a" / "phone.heic").touch()
    (tmp_path / "data" / "test" / "b" / "cut.png").write_bytes(picture(0)[:60])
    splits = (f"{tmp_path / 'data'}:{split}" for split in ("train", "test"))
    notes = evaluate(monkeypatch, "transfer", model, *splits, tmp_path / "out")["notes"]
    assert notes[-2:] == [
        "not read in train: 1 .heic: pip install pillow-heif",
        "not read in test: 1 unreadable images",
    ]


@pytest.mark.slow
def test_finetuning_leaves_out_what_cannot_be_read(model, tmp_path, caplog):
    """ms-swift issue 3275, SKU110K_CVPR19 issue 28: the first truncated image ended the training."""
    for split in ("train", "test"):
        write_images(tmp_path / "data" / split, 6, classes="ab", side=32)
        (tmp_path / "data" / split / "a" / "cut.png").write_bytes(picture(0)[:60])
    given = [
        str(model),
        "--data",
        str(tmp_path / "data"),
        "--epochs",
        "1",
        "--output",
        str(tmp_path / "classifier"),
    ]
    result = finetune.main([*given, "--result", str(tmp_path / "result.json")])
    assert [result[f"{name}_images"] for name in ("train", "test", "unreadable")] == [6, 6, 2]
    assert "2 images could not be read and were left out." in (tmp_path / "result.md").read_text()
    assert caplog.text.count("cut.png") == 4  # of each split at the start and at the end
    with pytest.raises(TooManyUnreadableImagesError, match="more than 0 of 7 images"):
        finetune.main([*given, "--max_unreadable", "0"])


# -- URLs and stores ---------------------------------------------------------------------------------------------------


def test_secrets_of_urls_are_written_nowhere(tmp_path, monkeypatch, capfd):
    """diffusers issue 6916, allenai/rslearn issue 687: not in options, records, indexes, caches, logs or trackers."""
    (tmp_path / "shards").mkdir()
    write_members(tmp_path / "shards" / "a-0.tar", number({"0.jpg": 0, "1.jpg": 1}))
    with serve(tmp_path / "shards") as server:
        server.secret = ("?sig=hush", "ada:pa55")
        url = server.url("a-{0..0}.tar").replace("://", "://ada:pa55@") + "?sig=hush"
        given = tiny(url, tmp_path / "run", f"{TINY} --cache {tmp_path}/run/cache")
        given[given.index("none")] = "tensorboard"
        type_arguments(monkeypatch, "training/pretrain.py", *given)
        main()
        assert count_images(tmp_path / "run") == 2
        assert "?sig=hush" in server.requests[-1]
        monkeypatch.setattr("modeling_esvit.storage.url_secrets._secrets", {})
        message = refuse(server.url("a-0.tar"), tmp_path / "other")
        assert "403" in message and "the signature of the URL may have expired" in message
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert len(files) > 10
    for word in (b"pa55", b"hush"):
        assert [str(file) for file in files if word in file.read_bytes() or word.decode() in str(file)] == []
    said = capfd.readouterr()
    assert not any(word in said.out + said.err for word in ("pa55", "hush"))


def test_a_server_that_asks_for_a_day_is_not_waited_for(tmp_path, monkeypatch, caplog):
    waits = []
    monkeypatch.setattr("training.data.shard_files.time.sleep", waits.append)
    answers = iter([StatusError(503, "Busy", {"Retry-After": "86400"}), None])

    def ask():
        if error := next(answers):
            raise error

    retry("a.tar", 300, ask)
    assert waits == [60.0] and "trying again in 60.0 s" in caplog.text


@pytest.mark.parametrize(
    "url, said",
    [
        ("s3://bucket/a-{0..3}.tar", "pip install s3fs"),
        ("gs://bucket/a.tar", "pip install gcsfs"),
        ("az://bucket/*.parquet", "pip install adlfs"),
        ("abc://bucket/a.tar", "nothing is known that reads such URLs"),
    ],
)
def test_a_store_whose_package_is_missing(url, said, tmp_path, monkeypatch):
    for name in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, name, None)
    message = refuse(url, tmp_path / "run", "--dry_run")
    assert said in message and message.count("\n") < 3


@pytest.fixture
def authority(tmp_path) -> tuple[Path, Path]:
    """Returns the files of a certificate of 127.0.0.1 that signs itself, and of its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, *names, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    return certificate, key


@pytest.mark.slow
@pytest.mark.parametrize("variable", CERTIFICATES)
def test_a_certificate_of_a_company_is_trusted_by_every_reader(variable, authority, tmp_path, monkeypatch):
    """huggingface_hub issues 1271 and 2222, xberg issue 1146: one library asks for it as the other does not."""
    (tmp_path / "shards").mkdir()
    write_members(tmp_path / "shards" / "a.tar", number({"0.jpg": 0, "1.jpg": 1}))
    (tmp_path / "shards" / "0.png").write_bytes(picture(0))
    for name in CERTIFICATES:
        monkeypatch.delenv(name, raising=False)
    http_client.open_client.cache_clear()
    with serve(tmp_path / "shards", authority) as server:
        message = refuse(server.url("a.tar"), tmp_path / "run")
        assert "signed by nobody who is trusted here" in message and "SSL_CERT_FILE names the file" in message
        with pytest.raises(UnreadableImageError, match="CERTIFICATE_VERIFY_FAILED"):
            decode(Record(server.url("0.png"), None, None))
        monkeypatch.setenv(variable, str(authority[0]))
        http_client.open_client.cache_clear()
        assert count_images(pretrain(server.url("a.tar"), tmp_path / "run")) == 2
        assert decode(Record(server.url("0.png"), None, None)).size == (12, 12)
    http_client.open_client.cache_clear()


def test_brackets_may_be_part_of_a_name(tmp_path):
    """generalui/s3p issue 53: a name that exists is no pattern, here and in a store."""
    path = tmp_path / "photographs [2024].tar"
    content = Path(write_members(path, number({"0.jpg": 0, "1.jpg": 1}))).read_bytes()
    fsspec.filesystem("memory").pipe(f"/named/{path.name}", content)
    for index, data in enumerate((path, f"memory://named/{path.name}")):
        arguments = tiny(tmp_path, tmp_path / f"run{index}", TINY)
        arguments[1] = str(data)
        main(arguments)
        assert count_images(tmp_path / f"run{index}") == 2


def test_a_folder_of_a_store_is_named_by_a_pattern(tmp_path):
    for data in ("s3://bucket/folder/", "https://host/photographs"):
        message = refuse(data, tmp_path / "run")
        assert f"{data!r} is no shard" in message and f"'{data.rstrip('/')}/*.tar'" in message


def test_what_a_server_may_do(tmp_path):
    (tmp_path / "shards").mkdir()
    write_members(tmp_path / "shards" / "a.tar", number({"0.jpg": 0, "1.jpg": 1}))
    with serve(tmp_path / "shards") as server:
        server.manners = {"redirect"}
        assert count_images(pretrain(server.url("a.tar"), tmp_path / "run")) == 2
        for manner, said in {"whole": "it knows no HTTP ranges", "endless": "sends more than"}.items():
            server.manners = {manner}
            message = refuse(server.url("a.tar"), tmp_path / "other")
            assert said in message and "a.tar" in message


def test_a_store_is_asked_for_its_version_at_every_read(tmp_path):
    """The store is fsspec's own in memory, which has neither commits nor conditions."""
    store = fsspec.filesystem("memory")
    content = Path(write_members(tmp_path / "a.tar", number({"0.jpg": 0, "1.jpg": 1}))).read_bytes()
    store.pipe("/wild/a.tar", content)
    assert count_images(pretrain("memory://wild/*.tar", tmp_path / "run")) == 2
    file = ShardFile.locate("memory://wild/a.tar", 0)
    assert file.read_range(3, 9) == content[3:9]
    store.pipe("/wild/a.tar", content)
    with pytest.raises(ChangedShardError, match="memory://wild/a.tar was changed since it was opened"):
        file.read_range(3, 9)
