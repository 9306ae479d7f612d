# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Classes as strangers have them, through the commands that a user types, and what these say of images left out.

What each test stands for was reported by users of other projects; the comments name the reports.
"""

import shutil
from pathlib import Path
from textwrap import dedent
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import examples.finetune as finetune
from modeling_esvit.images.data_errors import DataOptionError
from tests.helpers.shard_server import picture, write_members
from tests.helpers.tiny_runs import write_images, write_model
from tests.helpers.wild_data import MAINS, evaluate, write_rows
from training.data.shard_files import ShardError
from training.data.sources import name_numbers, open_source
from training.data.unreadable import TooManyUnreadableImagesError
from training.evaluation.class_names import ClassNameError
from training.features.extraction import UnlabelledDataError


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


@pytest.mark.parametrize("command", MAINS)
def test_the_label_column_is_chosen_in_every_command(command, model, cifar, tmp_path, monkeypatch):
    """datasets pull 1812, transformers pull 16528. A bank of features is not taken for one with other labels."""
    arguments = (model, f"{cifar}:train", f"{cifar}:test", tmp_path / "out")
    message = evaluate(monkeypatch, command, *arguments)
    assert "label" in message and "fine_label (ClassLabel of 4: ant, bee, cat, ...), coarse_label" in message
    for column, classes in {"fine_label": 4, "coarse_label": 2}.items():
        output = (*arguments[:3], tmp_path / column) if command == "linear_probe" else arguments
        assert evaluate(monkeypatch, command, *output, "--label_column", column)["classes"] == classes


def test_finetuning_has_a_label_column_too(model, cifar, tmp_path, capsys):
    given = [str(model), "--data", str(cifar), "--epochs", "1", "--output", str(tmp_path / "classifier")]
    with pytest.raises(ValueError, match=r"--label_column.*fine_label \(ClassLabel of 4"):
        finetune.main(given)
    assert finetune.main([*given, "--label_column", "coarse_label"])["classes"] == 2
    used: dict[str, Any] = {}
    lines = capsys.readouterr().out.rpartition("In Python:\n")[2].partition("To publish it:")[0]
    exec(dedent(lines), used)
    assert {guess["label"] for guess in used["classify"](Image.new("RGB", (32, 32)))} == {"a", "b"}


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
        images = finetune.SourceImages(open_source(test), [0], classes, lambda image: image)
        assert images.numbers == {0: 0, 1: 1}
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


@pytest.mark.parametrize("streaming", [False, True])
def test_integers_that_pandas_made_floats_of_are_classes(streaming, model, tmp_path, monkeypatch):
    """Where a row has no label, pandas stores the integers of the column as floats."""
    train = write_rows(tmp_path / "train.parquet", [0, 1], pa.int8())
    (tmp_path / "test").mkdir()
    write_rows(tmp_path / "test" / "test-0.parquet", [0, 1], pa.int64())
    test = write_rows(tmp_path / "test" / "test-1.parquet", [0.0, 1.0], pa.float64())
    more = ["--streaming"] if streaming else []
    output = tmp_path / "out"
    result = evaluate(monkeypatch, "knn", model, train, f"{tmp_path / 'test'}:test", output, *more)
    assert (result["classes"], result["test_images"], result["k1_top1"]) == (2, 4, 1.0)
    write_rows(test, [0.0, 1.0, float("nan")], pa.float64())
    assert "row 2 has no label (it is None)" in evaluate(monkeypatch, "knn", model, train, test, output, *more)
    write_rows(test, [0.0, 0.5], pa.float32())
    refused = evaluate(monkeypatch, "knn", model, train, test, output, *more, "--label_column", "label")
    assert "'label' holds the label 0.5, which is no whole number: write classes as integers or strings" in refused


@pytest.mark.parametrize("streaming", [False, True])
def test_a_row_without_a_label_makes_floats_of_one_shard(streaming, tmp_path):
    """pandas again, with integers in the first shard, whose type `datasets` takes for all of them."""
    write_rows(tmp_path / "a.parquet", [0, 1], pa.int32())
    write_rows(tmp_path / "b.parquet", [1.0, float("nan")], pa.float64())
    source = open_source(f"{tmp_path}/*.parquet", streaming=streaming)
    items = source.rows(0, 4) if streaming else range(4)
    assert [source.read(item).label for item in items] == [0, 1, 1, None]


def test_large_integers_beside_floats_are_kept_or_refused(tmp_path):
    """A float above 2**53 stands for several integers, and two classes would become one."""
    labels = [2**53, 2**53 + 1]
    write_rows(tmp_path / "a.parquet", labels, pa.int64())
    write_rows(tmp_path / "b.parquet", [1.0, 2.0], pa.float64())
    stream = open_source(f"{tmp_path}/*.parquet", streaming=True)
    assert [record.label for record in stream.rows(0, 4)] == [*labels, 1, 2]
    with pytest.raises(DataOptionError, match="9007199254740993 not in range.* integers or strings in all of them"):
        open_source(f"{tmp_path}/*.parquet")
    write_rows(tmp_path / "b.parquet", [2.0**53, 2.0], pa.float64())
    stream = open_source(f"{tmp_path}/*.parquet", streaming=True)
    with pytest.raises(DataOptionError, match="the label 9007199254740992 as a float, which stands for several"):
        list(stream.rows(0, 4))


def test_fine_tuning_compares_classes_as_evaluations_do():
    """Names that are integers are integers, in whatever order; words are none. What has no class is said at once."""

    def open_images(labels: list, classes: list[str]) -> finetune.SourceImages:
        images = [{"bytes": picture(index, 32), "path": None} for index in range(len(labels))]
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        rows = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
        return finetune.SourceImages(open_source(rows), range(len(labels)), classes, lambda image: image)

    images = open_images([2, 10], ["0", "1", "10", "2"])
    assert [images[index]["labels"] for index in range(2)] == [3, 2]
    with pytest.raises(ClassNameError, match="have the names 'cat', 'dog', and those of another are numbers"):
        open_images([0, 1], ["cat", "dog"])
    with pytest.raises(DataOptionError, match="row 1 has class 2, which no training image has"):
        open_images([0, 2], ["0", "1"])
    with pytest.raises(UnlabelledDataError, match="row 1 has no label"):
        open_images([0, None], ["0", "1"])


def test_scores_called_label_are_no_classes(tmp_path):
    scores = write_rows(tmp_path / "train.parquet", [0.25, 1.0], pa.float64())
    assert open_source(scores).class_names is None and not open_source(scores).has_labels
    with pytest.raises(DataOptionError, match="0.25, which is no whole number"):
        open_source(scores, label_column="label")


def test_a_mask_called_label_is_no_class(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Array2D((1, 2), "int32")})
    rows = {"image": [{"bytes": picture(0), "path": None}], "label": [[[0, 1]]]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "masks")
    source = open_source(tmp_path / "masks")
    assert not source.has_labels and source.read(0).label is None
    with pytest.raises(DataOptionError, match=r"label_column 'label' holds Array2D.*; labels are integers"):
        open_source(tmp_path / "masks", label_column="label")


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
    assert sum("Skipped 1 unreadable image:" in line for line in said) == 1  # once, and last
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
        "not read in test: 1 unreadable image",
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
    assert "Left out: 2 unreadable images." in (tmp_path / "result.md").read_text()
    assert caplog.text.count("cut.png") == 4  # of each split at the start and at the end
    with pytest.raises(TooManyUnreadableImagesError, match="more than 0 of 7 images"):
        finetune.main([*given, "--max_unreadable", "0", "--output", str(tmp_path / "other")])


def test_a_class_as_high_as_an_identifier_is_refused():
    rows = {"image": [{"bytes": content, "path": None} for content in (b"a", b"b")], "label": [0, 10**9]}
    data = datasets.Dataset.from_dict(rows)
    with pytest.raises(DataOptionError, match="'label' has the class 1000000000, and each number up to it would be"):
        name_numbers(open_source(data))
