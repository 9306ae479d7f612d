# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests the comparison of the tasks: its table, and a comparison of seconds from data to pictures."""

import json
from functools import partial

import pytest
import yaml
from PIL import Image

import examples.compare_tasks as compare_tasks
from tests.helpers.commands import type_arguments
from tests.helpers.tiny_runs import CROPS, HEADS, LENGTH, MEANS, NETWORK
from training.options.recipes import RecipeLoader


def scores(value: float) -> dict:
    placed = {"exact": value, "within_one": value, "chance_exact": 0.01, "chance_within_one": 0.02}
    return {
        "knn": {"k20_top1": value, "classes": 4},
        "linear": {"top1": value / 2},
        "mirrored": {"accuracy": value, "chance_accuracy": 0.05},
        **dict.fromkeys(("crops", "recoloured", "stereo"), placed),
    }


def test_table_has_mean_spread_and_chance():
    text = compare_tasks.make_table({"untrained": [scores(0.5), scores(0.6)], "view": [scores(0.7)]})
    assert text.splitlines() == [
        "| % | k-NN | linear | mirrored | crops | crops, recoloured | stereo |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| at random | 25.0 | 25.0 | 5.0 | 1.0 | 1.0 | 2.0 |",
        "| untrained | " + " | ".join(["55.0 ± 7.1", "27.5 ± 3.5", *["55.0 ± 7.1"] * 4]) + " |",
        "| view | 70.0 | 35.0 | 70.0 | 70.0 | 70.0 | 70.0 |",
    ]


def recipe_of(arguments: str) -> dict:
    """Turns `--name value ...` into the options of a recipe."""
    options = {name: values for name, *values in map(str.split, arguments.split("--")[1:])}
    read = partial(yaml.load, Loader=RecipeLoader)
    return {name: [*map(read, values)] if len(values) > 1 else read(values[0]) for name, values in options.items()}


@pytest.mark.slow
def test_comparison(tmp_path, monkeypatch, capsys):
    recipe = recipe_of(" ".join([NETWORK, HEADS, CROPS, LENGTH, MEANS]))
    recipe |= {name: [recipe[name]] for name in ("local_crop_sizes", "local_crops_numbers", "tracker")}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"architecture": "swin-tiny", **recipe}))
    sizes = {"PATCH": 48, "TRAIN": 6, "TEST": 2, "SIDE": 32, "RECIPE": str(tmp_path / "tiny.yaml")}
    for name, value in sizes.items():
        monkeypatch.setattr(compare_tasks, name, value)
    monkeypatch.setattr(compare_tasks, "measure_stereo", partial(compare_tasks.measure_stereo, size=(64, 96)))

    def compare(*changes: str) -> str:
        type_arguments(monkeypatch, "examples/compare_tasks.py", str(tmp_path / "out"), *changes)
        compare_tasks.main()
        return capsys.readouterr().out

    compare("--seeds", "1", "--tasks", "view")
    first = (tmp_path / "out" / "view-seed1" / "teacher" / "model.safetensors").stat().st_mtime_ns
    printed = compare("--seeds", "0", "1")
    assert (tmp_path / "out" / "view-seed1" / "teacher" / "model.safetensors").stat().st_mtime_ns == first
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {name: len(each) for name, each in results.items()} == {"untrained": 2, "view": 2, "view + region": 2}
    assert all(each["images"] == 19 * 2 and each["grid"] == [4, 4] for each in sum(results.values(), []))
    assert (tmp_path / "out" / "results.md").read_text() in printed and "| view + region | " in printed
    for name in ("results.png", "matches.png"):
        assert min(Image.open(tmp_path / "out" / name).size) > 200
    shown = compare("--seeds", "1", "--tasks", "view", "--epochs", "1")
    options = yaml.safe_load((tmp_path / "out" / "view-seed1-epochs1" / "options.yaml").read_text())
    assert options["epochs"] == 1 != recipe["epochs"] and "| view + region | " not in shown
