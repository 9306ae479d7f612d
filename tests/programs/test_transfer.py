# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the transfer evaluation on local data: scores, stops, other models, wrong calls."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Sequence
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

import training.evaluation.transfer_run as transfer_run
import training.transfer as transfer
from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.programs.ending import INTERRUPTED
from tests.helpers.commands import type_arguments
from tests.helpers.tiny_runs import write_images, write_model
from training.data.sources import open_source
from training.features.bank import make_bank
from training.features.frozen_models import load_frozen
from training.options.command import run_command


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of images of three classes; the same images with their colours as classes, in parquet files."""
    folder = tmp_path_factory.mktemp("data")
    for split, number in (("train", 30), ("test", 12)):
        write_images(folder / "folder" / split, number, classes="abc")
        files = sorted((folder / "folder" / split).rglob("*.png"))
        features = Features({"picture": Image(), "colours": Sequence(ClassLabel(names=["red", "blue"]))})
        columns = {
            "picture": list(map(str, files)),
            "colours": [[0], [1], [0, 1], []] * (number // 4) + [[0], [1]][: number % 4],
        }
        Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}.parquet")
    return folder


def run(monkeypatch, *arguments) -> int:
    type_arguments(monkeypatch, "training/transfer.py", *arguments)
    try:
        run_command(transfer.main)
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        return end.code
    return 0


def several_classes(data) -> str:
    table = {
        "train": f"{data}/train.parquet",
        "test": f"{data}/test.parquet",
        "label": "colours",
        "metric": "map_11_point",
    }
    missing = {"train": f"{data}/no/train", "test": f"{data}/no/test"}
    empty = {"train": f"{data}/folder:train", "test": f"{data}/empty"}
    (data / "empty").mkdir(exist_ok=True)
    path = data / "table.yaml"
    path.write_text(json.dumps({"colours": table, "missing": missing, "empty": empty}))  # JSON is YAML
    return str(path)


def test_command(model, data, tmp_path, monkeypatch, capsys):
    output = tmp_path / "results" / "mine.json"
    given = [model, "--output", output, "--device", "cpu", "--data", f"own={data / 'folder'}"]
    assert run(monkeypatch, *given) == 0
    first = json.loads(output.read_text())
    own = first["datasets"]["own"]
    assert (own["train_images"], own["test_images"], own["classes"], own["unknown_class_images"]) == (30, 12, 3, 0)
    assert first["average"] == own["score"] and first["measured"] == first["asked_for"] == 1
    assert "| own | accuracy |" in output.with_suffix(".md").read_text() and "| own |" in capsys.readouterr().out
    assert output.with_suffix(".png").stat().st_size > 5000
    assert first["command"].endswith("transfer.py MODEL --data own=FOLDER")
    figure = {"name": "transfer to own (accuracy)", "value": own["score"], "metric": "accuracy", "split": "test"}
    figure |= {"dataset": "a folder of images", "task": "image-classification", "chance": None, "before": None}
    assert first["figures"] == [figure]

    with monkeypatch.context() as patch:
        patch.setattr(transfer_run, "fit", None)  # what is there already is not fitted again
        assert run(monkeypatch, *given) == 0 and json.loads(output.read_text()) == first
    given += ["--table", several_classes(data), "--datasets", "colours", "missing", "empty"]
    assert run(monkeypatch, *given) == transfer.INCOMPLETE
    result = json.loads(output.read_text())
    assert result["datasets"]["own"] == own
    assert 0 < result["datasets"]["colours"]["score"] <= 1 and result["datasets"]["colours"]["classes"] == 2
    statuses = {name: found["status"] for name, found in result["datasets"].items()}
    assert statuses == {"colours": "measured", "missing": "missing", "empty": "failed", "own": "measured"}
    assert "no image below" in result["datasets"]["empty"]["reason"]
    assert result["measured"] == 2 and "Average of 2 of 4 data sets" in output.with_suffix(".md").read_text()


def test_score_is_that_of_scikit_learn(model, data, tmp_path, monkeypatch):
    output = tmp_path / "r.json"
    given = [model, "--output", output, "--data", f"own={data / 'folder'}", "--metric", "mean_per_class", "--seed", 3]
    fitted, fit = [], transfer_run.fit
    monkeypatch.setattr(
        transfer_run, "fit", lambda metric, rows, *rest: fitted.append(len(rows)) or fit(metric, rows, *rest)
    )
    assert run(monkeypatch, *given) == 0 and fitted == [30]  # on what was held out as well
    found = json.loads(output.read_text())["datasets"]["own"]
    sources = [open_source(data / "folder" / split) for split in ("train", "test")]
    train, test = (make_bank(load_frozen(str(model)), "x", source, tmp_path / "banks") for source in sources)
    scaler = StandardScaler().fit(train.features().double())
    judge = LogisticRegression(C=1 / (found["l2"] * len(train)), tol=1e-12, max_iter=10_000)
    judge.fit(scaler.transform(train.features().double()), train.labels)
    predicted = judge.predict(scaler.transform(test.features().double()))
    assert found["score"] == pytest.approx(balanced_accuracy_score(test.labels, predicted))


def test_the_validation_split_chooses_and_the_final_fit_has_all(model, tmp_path, monkeypatch):
    """Its labels are swapped: nothing that is fitted on the training split is right there, and few of them mislead."""
    for split, count, names in (("train", 20, "ab"), ("validation", 3, "ba"), ("test", 5, "ab")):
        for name, level in zip(names, (60, 190), strict=True):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for shade in range(count):
                image = PIL.Image.new("RGB", (32, 32), (level + shade, level, level - shade))
                image.save(tmp_path / "images" / split / name / f"{level}-{shade}.png")
    swapped = {split: f"{tmp_path / 'images'}:{split}" for split in ("train", "validation", "test")}
    (tmp_path / "table.yaml").write_text(json.dumps({"swapped": swapped}))
    output = tmp_path / "r.json"
    assert run(monkeypatch, model, "--output", output, "--table", tmp_path / "table.yaml") == 0
    found = json.loads(output.read_text())["datasets"]["swapped"]
    assert set(found["held_out"].values()) <= {0.0, 0.5}  # 0.5 where the penalty leaves one answer for all
    assert found["train_images"] == 46 and found["score"] == 1.0 and found["validation"].endswith(":validation")


def test_against_a_second_model(model, data, tmp_path, monkeypatch):
    torch.manual_seed(1)
    EsViTModel(EsViTConfig.from_pretrained(model)).save_pretrained(tmp_path / "other")
    output = tmp_path / "mine.json"
    given = [model, "--output", output, "--data", f"own={data / 'folder'}:train:test", "--metric", "mean_per_class"]
    assert run(monkeypatch, *given, "--against", tmp_path / "other") == 0
    result = json.loads(output.read_text())
    rival = result["against"]
    assert rival["compared"] == 1 and rival["average_of_model"] == result["average"]
    assert rival["wins"] == (result["average"] > rival["average"]) and rival["ties"] in (0, 1)
    assert json.loads((tmp_path / "mine.against.json").read_text())["average"] == rival["average"]

    changed = {
        "model": "theirs",
        "datasets": {"own": rival["datasets"]["own"] | {"score": 0.0}, "more": rival["datasets"]["own"]},
    }
    (tmp_path / "theirs.json").write_text(json.dumps(changed))
    assert run(monkeypatch, *given, "--against", tmp_path / "theirs.json") == 0
    result = json.loads(output.read_text())
    assert (result["against"]["wins"], result["against"]["compared"], result["against"]["average"]) == (1, 1, 0.0)
    assert "Against theirs: 1 wins and 0 ties in 1 data sets" in output.with_suffix(".md").read_text()
    assert run(monkeypatch, *given[:-1], "accuracy", "--against", tmp_path / "theirs.json") == 0
    rival = json.loads(output.read_text())["against"]
    assert rival["compared"] == rival["wins"] == 0 and list(rival["datasets"]) == ["more"]  # own is in another metric


def test_results_of_another_model_do_not_stay(model, data, tmp_path, monkeypatch):
    """Not even while the data sets are measured one by one: a command that is stopped would leave them."""
    torch.manual_seed(1)
    EsViTModel(EsViTConfig.from_pretrained(model)).save_pretrained(tmp_path / "other")
    given = ["--output", tmp_path / "r.json"]
    given += ["--data", f"one={data / 'folder'}", "--data", f"two={data / 'folder'}:test:train"]
    assert run(monkeypatch, model, *given) == 0
    written, write = list[list[str]](), transfer_run.write_result_file

    def recorded(path: Path, result: dict[str, Any]) -> None:
        written.append(list(result["datasets"]))
        write(path, result)

    monkeypatch.setattr(transfer_run, "write_result_file", recorded)
    for name, kept in (("other", ["one"]), ("other", ["one", "two"])):
        written.clear()
        assert run(monkeypatch, tmp_path / name, *given) == 0
        assert written == [kept, ["one", "two"]]


STOPPED = """
import os, signal, sys
from pathlib import Path
from typing import Any
from training import transfer
from training.evaluation import transfer_search

place = sys.argv.pop(1)
owner, name = (transfer_search, "score") if place == "score" else (Path, "replace")
signal_name, left, function = sys.argv.pop(1), iter(range(int(sys.argv.pop(1)) - 1, -1, -1)), getattr(owner, name)

def counted(*arguments):
    target = Path(arguments[1]) if place != "score" else None  # of a rename
    counts = place == "score" or (target.suffix == ".safetensors" if place == "part" else target.name == "r.json")
    if counts and next(left) == 0:
        os.kill(os.getpid(), signal.Signals[signal_name])
    return function(*arguments)

setattr(owner, name, counted)
transfer.run_command(transfer.main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", ["SIGKILL", "SIGINT"])
@pytest.mark.parametrize("place, calls", [("part", 8), ("score", 20), ("result", 2)])
def test_a_stopped_command_goes_on(model, data, tmp_path, monkeypatch, place, calls, number):
    """Stopped before a part of the second set is renamed, in its search, and before its result is renamed."""
    sets = ["--data", f"one={data / 'folder'}", "--data", f"two={data / 'folder'}:test:train", "--part_size", 8]
    given = [model, *sets, "--device", "cpu", "--dtype", "float32", "--output"]
    assert run(monkeypatch, *given, tmp_path / "whole" / "r.json") == 0
    whole = json.loads((tmp_path / "whole" / "r.json").read_text())

    output = tmp_path / "stopped" / "r.json"
    command = [sys.executable, "-c", STOPPED, place, number, str(calls), *map(str, given), str(output)]
    stopped = subprocess.run(command, capture_output=True)
    code = -signal.SIGKILL if number == "SIGKILL" else INTERRUPTED
    assert stopped.returncode == code, stopped.stderr.decode()
    done = {path: path.stat().st_mtime_ns for path in output.parent.rglob("part-*.safetensors")}
    finished = list(json.loads(output.read_text())["datasets"]) if output.exists() else []
    assert (len(done), finished) == ((7, []) if place == "part" else (12, ["one"]))

    searched, choose = [], transfer_run.choose_l2
    monkeypatch.setattr(transfer_run, "choose_l2", lambda *rest: searched.append(len(rest[1])) or choose(*rest))
    assert run(monkeypatch, *given, output) == 0
    assert json.loads(output.read_text())["datasets"] == whole["datasets"]
    assert searched == ([30, 12] if place == "part" else [12])
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(list(output.parent.rglob("part-*.safetensors"))) == 12 and not list(output.parent.rglob("*.partial"))


def test_wrong_calls(model, data, tmp_path, monkeypatch):
    output = ["--output", tmp_path / "r.json"]
    for wrong, message in (
        (["--datasets", "cifar11"], "The table has food101, cifar10"),
        (["--data", "folder"], "write NAME=DATA"),
        (["--data", "a=x", "--data", "a=y"], "same name"),
        (["--data", "a=x", "--against", data / "table.json"], "No such file"),
        (["--table", data / "no.yaml"], "No such file"),
    ):
        with pytest.raises(SystemExit, match=message):
            run(monkeypatch, model, *output, *wrong)
    (tmp_path / "r.json").write_text("{}")
    with pytest.raises(SystemExit, match="is not a result of transfer.py"):
        run(monkeypatch, model, *output, "--data", f"own={data / 'folder'}")
