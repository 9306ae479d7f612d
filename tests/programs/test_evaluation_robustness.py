# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The evaluation commands on unusual images, labels and splits: each gives a defined result or an error in one line."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pillow

import training.knn as knn
import training.linear_features as linear_features
import training.linear_probe as linear_probe
import training.transfer as transfer
from modeling_esvit import EsViTModel
from modeling_esvit.images.decoding import decode
from tests.helpers.commands import type_arguments
from tests.helpers.tiny_runs import write_images, write_model
from training.data.sources import open_source
from training.options.command import run_command


COMMANDS = ("knn", "linear_features", "linear_probe", "transfer")
COLOURS = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


def arguments(command: str, model: Path, train: str, test: str, output: Path, more: dict) -> list:
    data = ["--train", train, "--test", test, "--features", output.parent / "features"]
    result = ["--output", output]
    return {
        "knn": [model, *data, *result, "--k", *more.get("k", [1, 3])],
        "linear_features": [model, *data, *result, "--l2", 0.01],
        "linear_probe": [
            model,
            *data,
            "--output",
            output.parent,
            "--epochs",
            1,
            "--n_last_blocks",
            1,
            *more.get("probe", []),
        ],
        "transfer": [model, "--table", output.parent / "table.json", *result],
    }[command]


MAIN = {
    "knn": knn.main,
    "linear_features": linear_features.main,
    "linear_probe": linear_probe.main,
    "transfer": transfer.main,
}


def evaluate(monkeypatch, tmp_path, command, model, train, test, **more) -> dict | str:
    """The result, or what the command says of why there is none."""
    output = tmp_path / "result.json"
    (tmp_path / "table.json").write_text(json.dumps({"own": {"train": str(train), "test": str(test)}}))  # JSON is YAML
    given = arguments(command, model, train, test, output, more)
    type_arguments(monkeypatch, f"training/{command}.py", *given)
    try:
        run_command(MAIN[command])
    except SystemExit as end:
        if end.code != transfer.INCOMPLETE:
            assert str(end.code).startswith("error: ")
            return str(end.code)
    result = json.loads(output.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    if command == "transfer":
        return result["datasets"]["own"].get("reason") or result["datasets"]["own"]
    return result


def top1(command: str, result: dict) -> float:
    names = {"knn": "k1_top1", "linear_features": "top1", "transfer": "score"}
    return (
        result["classifiers"][result["best"]]["last"]["top1"] if command == "linear_probe" else result[names[command]]
    )


def rows(path: Path, labels: list, label: Value, images: int | None = None) -> str:
    """Parquet files of noisy images whose colour is that of their label."""
    numbers = {value: number for number, value in enumerate(sorted({str(value) for value in labels}))}
    pictures = []
    for index, value in enumerate(labels):
        noise = np.random.default_rng(index).normal(0, 20, (32, 32, 3))
        noise[..., numbers[str(value)] % 3] += 200
        file = path.with_name(f"{path.stem}-{index}.png")
        Pillow.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(file)
        pictures.append(str(file))
    features = Features({"image": Image(), "label": label})
    Dataset.from_dict({"image": pictures, "label": labels}, features=features).to_parquet(path)
    return str(path)


# -- images ------------------------------------------------------------------------------------------------------------


def unusual(pixels: np.ndarray) -> dict[str, Pillow.Image]:
    colours = Pillow.fromarray(pixels)
    palette = colours.quantize(64)
    palette.info["transparency"] = 3
    return {
        "gray.png": colours.convert("L"),
        "gray_alpha.png": colours.convert("LA"),
        "cmyk.jpg": colours.convert("CMYK"),
        "deep.png": Pillow.fromarray(pixels[..., 0].astype(np.uint16) * 257),
        "palette.png": palette,
        "one_pixel.png": colours.crop((0, 0, 1, 1)),
        "line.png": colours.crop((0, 0, 1, 1)).resize((1, 20_000)),
        "animation.gif": palette,
    }


def write_unusual(folder: Path) -> Path:
    """An image of each kind, dark in one class and bright in the other, and a huge one."""
    for name, pixels in {"a": COLOURS // 4, "b": 255 - COLOURS // 4}.items():
        (folder / name).mkdir(parents=True)
        for file, image in unusual(pixels).items():
            image.save(folder / name / file)
    Pillow.new("RGB", (6000, 4000), (20, 10, 5)).save(folder / "a" / "huge.jpg")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_unusual_images(command, model, tmp_path, monkeypatch, caplog):
    train, test = write_unusual(tmp_path / "train"), write_unusual(tmp_path / "test")
    result = evaluate(monkeypatch, tmp_path, command, model, train, test)
    assert result["test_images"] == 17 and 0 <= top1(command, result) <= 1
    assert "unreadable" not in caplog.text


# -- labels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_labels_are_strings(command, model, tmp_path, monkeypatch):
    """Equal names are equal classes, whichever a split has: "green" and "red" are not numbered alike in both."""
    train = rows(tmp_path / "train.parquet", ["blue", "green", "red"] * 8, Value("string"))
    source = open_source(train)
    assert source.class_names == ["blue", "green", "red"] and source.read(1).label == 1
    colours = rows(tmp_path / "test.parquet", ["blue", "green", "red"] * 3, Value("string"))
    some = Dataset.from_parquet(colours).filter(lambda row: row["label"] != "blue")
    some.to_parquet(tmp_path / "some.parquet")
    result = evaluate(monkeypatch, tmp_path, command, model, train, tmp_path / "some.parquet")
    assert result["test_images"] == 6 and result["classes"] == 3 and result["unknown_class_images"] == 0
    assert command == "linear_probe" or top1(command, result) == 1.0  # one epoch of SGD is too short


@pytest.mark.parametrize("command", COMMANDS)
def test_classes_that_training_lacks(command, model, tmp_path, monkeypatch):
    train = write_images(tmp_path / "train", 24, classes="ab")
    test = write_images(tmp_path / "test", 8, classes="abcd")
    result = evaluate(monkeypatch, tmp_path, command, model, train, test)
    assert result["unknown_class_images"] == 4 and top1(command, result) <= 0.5


@pytest.mark.parametrize("command", COMMANDS)
def test_one_class(command, model, tmp_path, monkeypatch):
    train, test = write_images(tmp_path / "train", 6, classes="a"), write_images(tmp_path / "test", 2, classes="a")
    result = evaluate(monkeypatch, tmp_path, command, model, train, test)
    assert result["classes"] == 1 and top1(command, result) == 1.0


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("missing", [-1, None])
def test_rows_without_a_label(command, missing, model, tmp_path, monkeypatch):
    labelled = rows(tmp_path / "train.parquet", [0, 1] * 6, Value("int64"))
    unlabelled = rows(tmp_path / "test.parquet", [0, missing, 1], Value("int64"))
    options = {"probe": ["--num_classes", 2]}
    assert "row 1" in evaluate(monkeypatch, tmp_path, command, model, labelled, unlabelled, **options)
    assert "has no label" in evaluate(monkeypatch, tmp_path, command, model, unlabelled, labelled, **options)


def test_truth_values_are_labels(tmp_path):
    source = open_source(rows(tmp_path / "train.parquet", [True, False], Value("bool")))
    assert [source.read(index).label for index in range(2)] == [1, 0]


def test_streams_take_no_strings(tmp_path):
    path = rows(tmp_path / "train.parquet", ["a", "b"], Value("string"))
    assert not open_source(path, streaming=True).has_labels
    with pytest.raises(ValueError, match="of a data set that is read in place, strings"):
        open_source(path, streaming=True, label_column="label")


# -- splits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_few_images(command, model, tmp_path, monkeypatch):
    """A test image, and as many training images as classes: fewer than any default k."""
    train, test = write_images(tmp_path / "train", 2, classes="ab"), write_images(tmp_path / "test", 1, classes="a")
    result = evaluate(monkeypatch, tmp_path, command, model, train, test, k=[1])
    if command == "transfer":
        assert "too few to hold out a share of 0.2" in result
    else:
        assert result["test_images"] == 1 and top1(command, result) in (0.0, 1.0)
    if command == "knn":
        assert "from 1 to 2" in evaluate(monkeypatch, tmp_path, command, model, train, test, k=[3])


@pytest.mark.parametrize("command", COMMANDS)
def test_empty_splits(command, model, tmp_path, monkeypatch):
    full = rows(tmp_path / "full.parquet", [0, 1] * 4, Value("int64"))
    empty = tmp_path / "empty.parquet"
    columns = Features({"image": Image(), "label": Value("int64")}).arrow_schema
    pq.ParquetWriter(empty, columns).close()  # `Dataset.to_parquet` of datasets 5.0 divides by the number of rows
    (tmp_path / "nothing").mkdir()
    Dataset.from_dict({"image": [], "label": []}).save_to_disk(tmp_path / "saved")
    for train, test in ((full, empty), (tmp_path / "saved", full), (full, tmp_path / "nothing")):
        message = evaluate(monkeypatch, tmp_path, command, model, train, test, probe=["--num_classes", 2])
        assert "no data" in message or "no rows" in message or "no image below" in message


# -- features ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_features_that_are_not_finite(command, model, tmp_path, monkeypatch):
    broken = EsViTModel.from_pretrained(model)
    torch.nn.init.constant_(broken.encoder.norm.bias, torch.nan)
    broken.save_pretrained(tmp_path / "broken")
    train, test = write_images(tmp_path / "train", 6, classes="ab"), write_images(tmp_path / "test", 4, classes="ab")
    assert "is not finite" in evaluate(monkeypatch, tmp_path, command, tmp_path / "broken", train, test)


def test_features_of_crops_that_are_not_finite(model, tmp_path, monkeypatch):
    """The test images are fine, a crop is not: a probe does not go on with it."""
    train, test = write_images(tmp_path / "train", 6, classes="ab"), write_images(tmp_path / "test", 4, classes="ab")
    monkeypatch.setattr(
        "training.evaluation.probe_data.ProbeView.make", lambda *_, **__: torch.full((3, 32, 32), torch.nan)
    )
    message = evaluate(monkeypatch, tmp_path, "linear_probe", model, train, test)
    assert "a crop of epoch 1 is not finite" in message


def test_a_loss_that_overflows_is_null(model, tmp_path, monkeypatch):
    train, test = write_images(tmp_path / "train", 12, classes="ab"), write_images(tmp_path / "test", 4, classes="ab")
    monkeypatch.setattr("training.evaluation.probes.INITIAL_STD", 3e38)
    result = evaluate(monkeypatch, tmp_path, "linear_probe", model, train, test)  # which takes no NaN
    assert result["classifiers"][result["best"]]["last"]["loss"] is None


def test_images_decode_alike_in_training_and_evaluation(tmp_path):
    source = open_source(write_unusual(tmp_path))
    assert {decode(source.read(index)).mode for index in range(len(source))} == {"RGB"}
