# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Transfer: metrics with scikit-learn as the judge, the search for the penalty, tables, the command on local data."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Sequence, Value
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

import training.evaluation.transfer_metrics as transfer_metrics
import training.evaluation.transfer_run as transfer_run
import training.transfer as transfer
from modeling_esvit import EsViTConfig, EsViTModel
from tests.helpers.tiny_runs import write_images, write_model
from training.data.columns import DataOptionError
from training.data.sources import open_source
from training.evaluation.linear_fit import HeldOutError, fit_one_vs_rest
from training.evaluation.transfer_metrics import MetricError, score
from training.evaluation.transfer_results import find_differences
from training.evaluation.transfer_search import L2, Standardisation, choose_l2, coarse_to_fine, tuning_parts
from training.evaluation.transfer_sets import (
    TABLE,
    TransferSet,
    TransferTableError,
    class_targets,
    entry,
    middle_rows,
    open_part,
    read_table,
    why_unavailable,
)
from training.features.bank import make_bank
from training.features.frozen_models import load_frozen
from training.options.command import run_command


def random_scores(classes: int, count: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    return torch.randn(count, classes, generator=generator), torch.randint(classes, (count,), generator=generator)


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_metrics_equal_scikit_learn():
    scores, labels = random_scores(4)
    predicted = scores.argmax(dim=1)
    assert score("accuracy", scores, labels) == pytest.approx((predicted == labels).double().mean().item())
    assert score("mean_per_class", scores, labels) == pytest.approx(balanced_accuracy_score(labels, predicted))
    scores, labels = random_scores(2)
    expected = roc_auc_score(labels, scores.softmax(dim=1)[:, 1])
    assert score("roc_auc", scores, labels) == pytest.approx(expected)


def test_images_of_no_training_class_are_wrong():
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    labels = torch.tensor([0, 1, -1])
    assert score("accuracy", scores, labels) == pytest.approx(2 / 3)
    assert score("mean_per_class", scores, labels) == pytest.approx(2 / 3)  # of two classes and the unknown one


def test_eleven_point_average_precision_by_hand():
    """Ranks of the three positives of five: 1, 3, 4. Precisions 1, 2/3, 3/4 at the recalls 1/3, 2/3, 1."""
    scores = torch.tensor([[5.0], [4.0], [3.0], [2.0], [1.0]])
    targets = torch.tensor([[1], [0], [1], [1], [0]])
    expected = (4 * 1 + 7 * 3 / 4) / 11  # the points 0 .. 0.3, and 0.4 .. 1
    assert score("map_11_point", scores, targets) == pytest.approx(expected)

    two = torch.cat([scores, -scores, scores], dim=1)  # the second class in the opposite order, the third never there
    present = torch.cat([targets, targets, torch.zeros_like(targets)], dim=1)
    # Ranks 2, 3, 5: precisions 1/2, 2/3, 3/5 at 1/3, 2/3, 1; the best from each point on: 2/3 up to 0.6, then 3/5.
    reverse = (7 * 2 / 3 + 4 * 3 / 5) / 11
    assert score("map_11_point", two, present) == pytest.approx((expected + reverse) / 2)


def test_recalls_reach_points_exactly():
    """Ten positives first: each point is reached with precision 1, also those that binary fractions miss."""
    targets = torch.tensor([1] * 10 + [0] * 10)[:, None]
    assert score("map_11_point", torch.arange(20.0).flip(0)[:, None], targets) == 1.0
    tied = score("map_11_point", torch.zeros(20, 1), targets)  # equal scores come together, in no order
    assert tied == pytest.approx(0.5)


def test_metrics_that_are_not_defined():
    with pytest.raises(MetricError, match=r"two classes; these are of \[0\] of 2"):
        score("roc_auc", torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(MetricError, match="two classes"):
        score("roc_auc", *random_scores(3))
    with pytest.raises(MetricError, match="of any class"):
        score("map_11_point", torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.int64))


# -- classifiers and their penalty -------------------------------------------------------------------------------------


def test_one_vs_rest_equals_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(90, 5, generator=generator)
    targets = (features @ torch.randn(5, 3, generator=generator) + torch.randn(90, 3, generator=generator) > 0).long()
    for l2, linear in zip((0.1, 0.01), fit_one_vs_rest(features, targets, 3, [0.1, 0.01]), strict=True):
        judge = OneVsRestClassifier(LogisticRegression(C=1 / (l2 * 90), tol=1e-8, max_iter=5000))
        expected = judge.fit(features.double().numpy(), targets.numpy()).predict_proba(features.double().numpy())
        np.testing.assert_allclose(linear.scores(features).sigmoid().numpy(), expected, atol=2e-5)


def test_search_goes_from_coarse_to_fine():
    assert len(L2) == 97 and L2[0] == pytest.approx(1e-6) and L2[-1] == pytest.approx(1e6)
    for best in (0, 5, 37, 48, 96):
        calls: list[int] = []

        def evaluate(values, best=best, calls=calls):
            calls.extend(values)
            return [-abs(L2.index(value) - best) for value in values]

        found, scores = coarse_to_fine(evaluate)
        assert found == L2[best] and len(calls) == len(set(calls)) <= 15 and list(scores) == sorted(calls)
    assert coarse_to_fine(lambda values: [0.5] * len(values))[0] == L2[-1]  # of equal ones the largest


def test_standardised_features():
    features = torch.randn(50, 3) * torch.tensor([1e3, 1.0, 0.0]) + 7
    standard = Standardisation.of(features)(features)
    torch.testing.assert_close(standard.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard.std(dim=0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-3, rtol=0)


def test_parts_for_tuning():
    labels = torch.tensor([0, 1] * 20)
    training, aside = tuning_parts(labels, 10, per_class=3, seed=0)
    assert aside.tolist() == list(range(30, 40)) and labels[training].bincount().tolist() == [3, 3]
    training, aside = tuning_parts(labels, 0, per_class=None, seed=0)
    assert labels[aside].bincount().tolist() == [4, 4] and not set(training.tolist()) & set(aside.tolist())
    training, aside = tuning_parts(torch.ones(10, 3), 0, per_class=None, seed=0)
    assert len(training) == 8 and len(aside) == 2
    for impossible in (torch.arange(4), torch.ones(1, 3)):
        with pytest.raises(HeldOutError):
            tuning_parts(impossible, 0, per_class=None, seed=0)


def test_penalty_is_chosen_by_the_metric(monkeypatch):
    """Noise beside one useful feature, few images: a larger penalty than the smallest is better."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(2, (200,), generator=generator)
    features = torch.randn(200, 40, generator=generator)
    features[:, 0] += 2 * labels
    parts, steps = tuning_parts(labels, 0, per_class=15, seed=0), []
    l2, scores = choose_l2("roc_auc", features, labels, 2, parts, lambda: steps.append(1))
    assert 1e-6 < l2 and scores[l2] == max(scores.values()) > scores[L2[0]] and len(steps) == len(scores)
    monkeypatch.setitem(transfer_metrics.METRICS, "roc_auc", lambda *_: 0.0)
    assert choose_l2("roc_auc", features, labels, 2, parts, lambda: None)[0] == L2[-1]


# -- data sets ---------------------------------------------------------------------------------------------------------


def test_table_of_the_paper():
    table = read_table(TABLE)
    assert len(table) == 18
    metrics = [each.metric for each in table.values()]
    assert [metrics.count(name) for name in transfer_metrics.METRICS] == [12, 4, 1, 1]
    assert all(each.classes and each.sizes and each.label for each in table.values())


def test_tables_that_cannot_be(tmp_path):
    for values, message in (
        ({"train": "a:train"}, "train and test are needed"),
        ({"train": "a:train", "test": "a:test", "colour": 1}, "colour"),
        ({"train": "a:train", "test": "a:test", "metric": "f1"}, "'f1' is none of accuracy"),
        ({"train": "a:x", "test": "a:y", "metric": "map_11_point", "tune_per_class": 1}, "tune_per_class"),
    ):
        with pytest.raises(TransferTableError, match=message):
            entry("mine", values)
    with pytest.raises(DataOptionError, match="the same data"):
        entry("mine", {"train": "org/a:train", "test": "org/a:train"})
    (tmp_path / "table.yaml").write_text("- a\n")
    with pytest.raises(TransferTableError, match="must map"):
        read_table(tmp_path / "table.yaml")


def test_lists_of_classes():
    def targets(lists, feature):
        return class_targets(Dataset.from_dict({"c": lists}, features=Features({"c": Sequence(feature)})), "c")

    found, names = targets([[2], [], [0, 2]], ClassLabel(names=["a", "b", "c"]))
    assert found.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 1]] and names == ["a", "b", "c"]
    assert targets([["cat", "dog"], ["cat"]], Value("string"))[0].tolist() == [[1, 1], [1, 0]]
    assert targets([[1], [3, 0]], Value("int64"))[0].tolist() == [[0, 1, 0, 0], [1, 0, 0, 1]]
    assert targets([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]], Value("float32"))[0].tolist() == [[0, 1, 1], [0, 0, 0]]
    for wrong in ([[-1, 1], [0, 1]], [[0.5, 1.0]]):
        with pytest.raises(DataOptionError, match="class numbers, or of 0 and 1"):
            targets(wrong, Value("float32"))
    with pytest.raises(DataOptionError, match="does not exist"):
        class_targets(Dataset.from_dict({"c": [[1]]}), "classes")
    with pytest.raises(DataOptionError, match="a list for each image"):
        class_targets(Dataset.from_dict({"c": [1]}), "c")


def test_middle_of_each_clip():
    rows = Dataset.from_dict({"video": [1, 1, 1, 2, 1, 2], "clip": [1, 1, 1, 1, 2, 1], "frame": [0, 1, 2, 0, 0, 1]})
    assert middle_rows(rows, ("video", "clip"))["frame"][:] == [1, 1, 0]


# -- the command -------------------------------------------------------------------------------------------------------


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
    monkeypatch.setattr(sys, "argv", ["transfer.py", *map(str, arguments)])
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
    assert first["command"].endswith("transfer.py MODEL --data own=folder")
    figure = {"name": "transfer to own (accuracy)", "value": own["score"], "metric": "accuracy", "dataset": "folder"}
    assert first["figures"] == [figure | {"split": "test", "task": "image-classification"}]

    monkeypatch.setattr(transfer_run, "fit", None)  # what is there already is not fitted again
    assert run(monkeypatch, *given) == 0 and json.loads(output.read_text()) == first
    monkeypatch.undo()
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
    written, write = list[list[str]](), transfer_run.write_text

    def recorded(path: Path, content: bytes) -> None:
        written.append(list(json.loads(content)["datasets"]))
        write(path, content)

    monkeypatch.setattr(transfer_run, "write_text", recorded)
    for name, kept in (("other", ["one"]), ("other", ["one", "two"])):
        written.clear()
        assert run(monkeypatch, tmp_path / name, *given) == 0
        assert written == [kept, ["one", "two"]]


STOPPED = """
import os, signal, sys
from pathlib import Path
from training import transfer
from training.evaluation import transfer_search

owner, name = {"replace": (Path, "replace"), "score": (transfer_search, "score")}[sys.argv.pop(1)]
signal_name, left, function = sys.argv.pop(1), iter(range(int(sys.argv.pop(1)) - 1, -1, -1)), getattr(owner, name)

def counted(*arguments):
    if next(left) == 0:
        os.kill(os.getpid(), signal.Signals[signal_name])
    return function(*arguments)

setattr(owner, name, counted)
transfer.run_command(transfer.main)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", ["SIGKILL", "SIGINT"])
@pytest.mark.parametrize("place, calls", [("replace", 11), ("score", 20), ("replace", 18)])
def test_a_stopped_command_goes_on(model, data, tmp_path, monkeypatch, place, calls, number):
    """Stopped before a part of the second set is renamed, in its search, and before its result is renamed."""
    sets = ["--data", f"one={data / 'folder'}", "--data", f"two={data / 'folder'}:test:train", "--part_size", 8]
    given = [model, *sets, "--device", "cpu", "--output"]
    assert run(monkeypatch, *given, tmp_path / "whole" / "r.json") == 0
    whole = json.loads((tmp_path / "whole" / "r.json").read_text())

    output = tmp_path / "stopped" / "r.json"
    command = [sys.executable, "-c", STOPPED, place, number, str(calls), *map(str, given), str(output)]
    stopped = subprocess.run(command, capture_output=True)
    assert stopped.returncode == -signal.Signals[number], stopped.stderr.decode()
    done = {path: path.stat().st_mtime_ns for path in output.parent.rglob("part-*.safetensors")}
    finished = list(json.loads(output.read_text())["datasets"]) if output.exists() else []
    assert (len(done), finished) == ((7, []) if calls == 11 else (12, ["one"]))

    searched, choose = [], transfer_run.choose_l2
    monkeypatch.setattr(transfer_run, "choose_l2", lambda *rest: searched.append(len(rest[1])) or choose(*rest))
    assert run(monkeypatch, *given, output) == 0
    assert json.loads(output.read_text())["datasets"] == whole["datasets"]
    assert searched == ([30, 12] if calls == 11 else [12])
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(list(output.parent.rglob("part-*.safetensors"))) == 12 and not list(output.parent.rglob("*.partial"))


def test_wrong_calls(model, data, tmp_path, monkeypatch):
    output = ["--output", tmp_path / "r.json"]
    for wrong, message in (
        (["--datasets", "cifar11"], "the table has food101, cifar10"),
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


def test_what_differs_from_the_table_is_noted():
    each = TransferSet("x", "a:train", "a:test", classes=3, sizes=(30, 12))
    found = {"train_images": 30, "test_images": 11, "classes": 3, "unknown_class_images": 2}
    assert find_differences(each, found) == [
        "11 test images, not 12",
        "2 test images of no training class, which count as wrong",
    ]
    assert find_differences(replace(each, classes=None, sizes=None), found | {"unknown_class_images": 0}) == []


def test_shards_of_the_hub_that_cannot_be_reached_are_missing(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    each = TransferSet("voc", "hf://datasets/no/such@main/train*.parquet", "hf://datasets/no/such@main/test*.parquet")
    with pytest.raises(OSError) as met:
        open_part(each, each.train)
    assert why_unavailable(met.value) == "missing"
