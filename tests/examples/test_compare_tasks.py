# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests the comparison of the tasks: its table, and a comparison of seconds from data to pictures."""

import json
from functools import partial

import pytest
import yaml
from PIL import Image

import examples.compare_tasks as compare_tasks
from examples.demo import OtherSettingsError
from tests.helpers.commands import type_arguments
from tests.helpers.tiny_runs import CROPS, HEADS, LENGTH, MEANS, NETWORK
from training.options.errors import OptionError
from training.options.recipes import RecipeLoader


def scores(value: float) -> dict:
    placed = {"exact": value, "chance_exact": 0.01}
    return {
        "knn": {"k20_top1": value, "classes": 4},
        "grid": [1, 2],
        "mirrored": {"accuracy": value, "chance_accuracy": 0.05, "distinct": value / 2},
        **dict.fromkeys(("crops", "recoloured"), placed),
    }


def test_table_has_mean_spread_and_chance():
    text = compare_tasks.make_table({"untrained": [scores(0.5), scores(0.6)], "view": [scores(0.7)]})
    assert text.splitlines() == [
        "| % | k-NN | mirrored | crops | recoloured | different regions |",
        "| --- | --- | --- | --- | --- | --- |",
        "| at random | 25.0 | 5.0 | 1.0 | 1.0 | 75.0 |",
        "| untrained | " + " | ".join([*["55.0 ± 7.1"] * 4, "27.5 ± 3.5"]) + " |",
        "| view | 70.0 | 70.0 | 70.0 | 70.0 | 35.0 |",
    ]


def test_every_kind_of_model_has_a_bar():
    kinds = [compare_tasks.UNTRAINED, *compare_tasks.ARMS]
    figure = compare_tasks.draw_results({name: [scores(0.1 * number)] for number, name in enumerate(kinds, 1)})
    for axes in figure.axes:
        assert [bar.get_height() for bar in axes.patches] == sorted({bar.get_height() for bar in axes.patches})
        assert len(axes.patches) == len(kinds) == len({bar.get_facecolor() for bar in axes.patches})


@pytest.mark.parametrize(
    ("untrained", "view", "location", "verdicts"),
    [
        ((0.5, 0.6), (0.3, 0.4), (0.7, 0.8), ["shown"] * 4),
        ((0.5, 0.6), (0.3, 0.75), (0.7, 0.8), ["not shown"] * 4),  # one seed against it; a spread as large as the gain
        ((0.5, 0.6), (0.3, 0.4), (0.31, 0.39), ["shown", *["not shown"] * 3]),
        ((0.5,), (0.3,), (0.7,), ["one seed shows nothing either way; give several, as --seeds 0 1 2"] * 4),
    ],
)
def test_verdicts_are_those_that_were_declared(untrained, view, location, verdicts):
    arms = {"untrained": untrained, "view": view, "by location": location}
    lines = compare_tasks.judge({name: [scores(value) for value in values] for name, values in arms.items()})
    assert [line.split(": ")[2].split(" (")[0] for line in lines] == verdicts


def recipe_of(arguments: str) -> dict:
    """Turns `--name value ...` into the options of a recipe."""
    options = {name: values for name, *values in map(str.split, arguments.split("--")[1:])}
    read = partial(yaml.load, Loader=RecipeLoader)
    return {name: [*map(read, values)] if len(values) > 1 else read(values[0]) for name, values in options.items()}


class Begun(Exception):
    """Raised in place of a comparison."""


def test_parts_of_another_comparison_are_not_taken(tmp_path, monkeypatch):
    def begin(*_):
        raise Begun

    monkeypatch.setattr(compare_tasks, "write_data", begin)

    def compare(*words: str, raises: type[Exception]) -> str:
        type_arguments(monkeypatch, "examples/compare_tasks.py", str(tmp_path / "out"), *words)
        with pytest.raises(raises) as error:
            compare_tasks.main()
        return str(error.value)

    assert "region_weight" in compare("--region_wieght", "0.8", raises=OptionError)
    compare("--region_weight", "0.8", raises=Begun)
    compare("--region_weight", "0.8", "--seeds", "3", "--arms", "view", raises=Begun)
    said = compare("--region_weight", "0.8", "--data", "photographs", raises=OtherSettingsError)
    assert said.endswith(
        "another comparison (data was collages and is photographs): name another folder, or remove it first."
    )
    said = compare(raises=OtherSettingsError)
    assert "(options was ['--region_weight', '0.8'] and is [])" in said


@pytest.mark.slow
def test_comparison(tmp_path, monkeypatch, capsys):
    recipe = recipe_of(" ".join([NETWORK, HEADS, CROPS, LENGTH, MEANS]))
    recipe |= {name: [recipe[name]] for name in ("local_crop_sizes", "local_crops_numbers", "tracker")}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"architecture": "swin-tiny", **recipe}))
    sizes = {"TRAIN": 48, "TEST": 32, "SIDE": 32, "RECIPE": str(tmp_path / "tiny.yaml")}
    for name, value in sizes.items():
        monkeypatch.setattr(compare_tasks, name, value)

    def compare(*changes: str) -> str:
        type_arguments(monkeypatch, "examples/compare_tasks.py", str(tmp_path / "out"), *changes)
        compare_tasks.main()
        return capsys.readouterr().out

    compare("--seeds", "1", "--arms", "view")
    first = (tmp_path / "out" / "view-seed1" / "teacher" / "model.safetensors").stat().st_mtime_ns
    printed = compare("--seeds", "0", "1", "--arms", "view", "by location")
    assert (tmp_path / "out" / "view-seed1" / "teacher" / "model.safetensors").stat().st_mtime_ns == first
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {name: len(each) for name, each in results.items()} == {"untrained": 2, "view": 2, "by location": 2}
    assert {(each["images"], *each["grid"]) for each in sum(results.values(), [])} == {(32, 7, 7)}
    assert (tmp_path / "out" / "results.md").read_text() in printed and "| by location | " in printed
    assert "* recoloured: by location above view: " in printed
    for name in ("results.png", "matches.png"):
        assert min(Image.open(tmp_path / "out" / name).size) > 200
    shown = compare("--seeds", "1", "--arms", "view", "--epochs", "1")
    options = yaml.safe_load((tmp_path / "out" / "view-seed1-epochs1" / "options.yaml").read_text())
    assert options["epochs"] == 1 != recipe["epochs"] and "| by location | " not in shown
