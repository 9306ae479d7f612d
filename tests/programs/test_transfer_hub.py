# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Transfer to data sets of the Hub, by the unmodified clients: miniatures of several layouts, one gone, one gated."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Sequence, Value
from PIL import Image as Pillow

from tests.helpers.commands import run_program, torchrun
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import write_model
from tests.hub.client import GRANTED, TOKENS
from tests.hub.loopback_hub import LoopbackHub
from tests.hub.protocol import Repository


COLOURS = ((200, 30, 30), (30, 30, 200))  # of the classes


def picture(classes: list[int], seed: int) -> bytes:
    """A noisy image whose left half has the colour of one class and whose right half that of another, or black."""
    noise = np.random.default_rng(seed).normal(0, 400, (32, 32, 3))
    noise[:, :16] += COLOURS[classes[0]] if classes else 0
    noise[:, 16:] += COLOURS[classes[-1]] if classes else 0
    buffer = io.BytesIO()
    Pillow.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def parquet(columns: dict, features: dict) -> bytes:
    buffer = io.BytesIO()
    Dataset.from_dict(columns, features=Features(features)).to_parquet(buffer)
    return buffer.getvalue()


def pictures(lists: list[list[int]], seed: int) -> list[dict]:
    return [{"bytes": picture(classes, seed + number), "path": None} for number, classes in enumerate(lists)]


def named_classes(count: int, seed: int) -> bytes:
    """As CIFAR-100: two columns of classes, images in `img`."""
    labels = [number % 2 for number in range(count)]
    features = {
        "img": Image(),
        "fine_label": ClassLabel(names=["red", "blue"]),
        "coarse_label": ClassLabel(names=["any"]),
    }
    images = pictures([[label] for label in labels], seed)
    return parquet({"img": images, "fine_label": labels, "coarse_label": [0] * count}, features)


def several_classes(count: int, seed: int) -> bytes:
    """As VOC 2007: a list of class numbers."""
    lists = [[[0], [1], [0, 1], []][number % 4] for number in range(count)]
    features = {"image": Image(), "classes": Sequence(Value("int32"))}
    return parquet({"image": pictures(lists, seed), "classes": lists}, features)


def clips(count: int, seed: int) -> bytes:
    """As UCF-101: three frames of each clip."""
    labels = [number // 3 % 2 for number in range(3 * count)]
    columns = {"image": pictures([[label] for label in labels], seed), "label": labels}
    columns |= {"clip_id": [f"clip {number // 3}" for number in range(3 * count)]}
    return parquet(columns, {"image": Image(), "label": ClassLabel(names=["a", "b"]), "clip_id": Value("string")})


def shard(count: int, seed: int) -> bytes:
    """As WebDataset: images and numbers of classes in a tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number in range(count):
            for extension, content in (("png", picture([number % 2], seed + number)), ("cls", b"%d" % (number % 2))):
                member = tarfile.TarInfo(f"{number:04d}.{extension}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def splits(make, train: int = 20, test: int = 8, pattern: str = "data/{}-00000-of-00001.parquet") -> dict[str, bytes]:
    return {pattern.format("train"): make(train, 0), pattern.format("test"): make(test, 100)}


def repositories() -> list[Repository]:
    return [
        Repository(
            "org/named", splits(named_classes) | {"data/validation-00000-of-00001.parquet": named_classes(6, 50)}
        ),
        Repository("org/several", splits(several_classes, pattern="main/{}/0000.parquet")),
        Repository("org/clips", splits(clips)),
        Repository("org/tar", splits(shard, pattern="{}/0.tar")),
        Repository("org/gated", splits(named_classes), gated="manual"),
    ]


TABLE = {
    "named": {
        **{part: f"org/named:{part}" for part in ("train", "validation", "test")},
        **{"image": "img", "label": "fine_label", "metric": "roc_auc", "classes": 2, "sizes": [26, 9]},
    },
    "several": {
        **{part: f"hf://datasets/org/several/main/{part}/*.parquet" for part in ("train", "test")},
        **{"label": "classes", "metric": "map_11_point", "classes": 2},
    },
    "clips": {"train": "org/clips:train", "test": "org/clips:test", "label": "label", "middle_of": ["clip_id"]},
    "tar": {part: f"hf://datasets/org/tar/{part}/*.tar" for part in ("train", "test")},
    "gated": {"train": "org/gated:train", "test": "org/gated:test", "label": "fine_label"},
    "gone": {"train": "org/gone:train", "test": "org/gone:test"},
    "no_files": {part: f"hf://datasets/org/gated/{part}/*.parquet" for part in ("train", "test")},
    "no_split": {"train": "org/named:train", "test": "org/named:holdout", "image": "img", "label": "fine_label"},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


def evaluate(hub: LoopbackHub, model: Path, home: Path, launcher: list[str], *options: str) -> dict:
    table = home / "table.yaml"
    table.write_text(json.dumps(TABLE))  # JSON is YAML
    given = [model, "--table", table, "--output", home / "result.json", "--device", "cpu", "--part_size", 5, *options]
    command = [*launcher, ROOT / "training" / "transfer.py", *given]
    run_program(command, home, code=3 if launcher == ["python"] else 1, base=hub.environment(home, GRANTED))
    return json.loads((home / "result.json").read_text())


@pytest.mark.slow
def test_data_sets_of_the_hub(model, tmp_path):
    with LoopbackHub(repositories(), TOKENS) as hub:
        result = evaluate(hub, model, tmp_path, ["python"])
    found = result["datasets"]
    assert {name: each["status"] for name, each in found.items()} == {
        **dict.fromkeys(("named", "several", "clips", "tar"), "measured"),
        **{"gated": "gated", "gone": "missing", "no_files": "missing", "no_split": "failed"},
    }
    counts = {
        name: (each["train_images"], each["test_images"], each["classes"])
        for name, each in found.items()
        if "score" in each
    }
    assert counts == {"named": (26, 8, 2), "several": (20, 8, 2), "clips": (20, 8, 2), "tar": (20, 8, 2)}
    assert all(0.9 < found[name]["score"] <= 1 for name in ("named", "clips", "tar"))  # red and blue
    assert found["several"]["score"] > 0.6 and found["named"]["notes"] == ["8 test images, not 9"]
    assert "org/gone" in found["gone"]["reason"] and "holdout" in found["no_split"]["reason"]
    assert (result["measured"], result["asked_for"]) == (4, 8)
    assert result["average"] == pytest.approx(sum(each.get("score", 0) for each in found.values()) / 4)


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(model, tmp_path):
    results = []
    for name, launcher in (("one", ["python"]), ("two", torchrun(2))):
        (tmp_path / name).mkdir()
        with LoopbackHub(repositories(), TOKENS) as hub:
            results.append(evaluate(hub, model, tmp_path / name, launcher))
    for name, one in results[0]["datasets"].items():
        two = results[1]["datasets"][name]
        assert [one.get(each) for each in ("status", "score", "l2", "held_out")] == [
            two.get(each) for each in ("status", "score", "l2", "held_out")
        ]
    assert results[0]["average"] < 1
