# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the verdicts on adapted models, and adapts a backbone of random weights."""

import json

import pytest
from transformers import AutoBackbone, AutoConfig

import examples.adapt as adapt
from examples.adapt import BEFORE, MEASURES, judge, main, make_table
from examples.own_statistics import OwnStatisticsError
from modeling_esvit import EsViTConfig, EsViTForPreTraining
from tests.helpers.tiny_models import DINO_V2, HEADS, RESNET
from training.data.sources import open_source


def make_values(**changes: list[float]) -> dict[str, list[float]]:
    """Returns the values of three seeds, 0.5 in every measure that `changes` leaves out."""
    return {title: changes.get(title, [0.5, 0.5, 0.5]) for title in MEASURES}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "not shown to help; gains: none; losses: none"),
        ({"linear": [0.52, 0.53, 0.54]}, "helps; gains: linear; losses: none"),
        ({"linear": [0.52, 0.53, 0.49]}, "not shown to help; gains: none; losses: none"),  # not with every seed
        ({"linear": [0.501, 0.51, 0.6]}, "not shown to help; gains: none; losses: none"),  # within the spread
        ({"linear": [0.6, 0.6, 0.6], "crops": [0.4, 0.41, 0.42]}, "not shown to help; gains: linear; losses: crops"),
        ({"linear": [0.6, 0.6, 0.6], "crops": [0.47, 0.5, 0.52]}, "helps; gains: linear; losses: none"),
    ],
)
def test_verdicts_are_those_that_were_declared(changes, verdict):
    results = {BEFORE: {title: [0.5] for title in MEASURES}, "location": make_values(**changes)}
    assert judge(results) == [f"* location: {verdict}"]


def test_one_seed_shows_nothing():
    one = {title: [0.6] for title in MEASURES}
    lines = judge({BEFORE: {title: [0.5] for title in MEASURES}, f"{BEFORE}, {adapt.OWN}": one, "location": one})
    assert lines[0].startswith(f"* {BEFORE}, {adapt.OWN}: helps; gains: k-NN, ")  # without a seed
    assert lines[1:] == ["* location: one seed shows nothing either way; give several, as --seeds 0 1 2"]


def test_table_has_mean_and_spread():
    table = make_table({BEFORE: {title: [0.5] for title in MEASURES}, "view": make_values(linear=[0.5, 0.6, 0.7])})
    assert "50.0" in table and "60.0 ± 10.0" in table and "crops, within one" in table


def test_each_kind_is_also_measured_with_the_statistics_of_the_patches(labelled_images, tmp_path, monkeypatch):
    def pretrain(data, output, *_):
        for name in ("untrained", "teacher"):
            model = EsViTForPreTraining(
                EsViTConfig(architecture="auto", backbone_config=RESNET, image_size=32, **HEADS)
            )
            model.save_pretrained(output / name)
        return output

    monkeypatch.setattr(adapt, "pretrain", pretrain)
    monkeypatch.setattr(adapt, "open_source", lambda data, split: open_source(str(labelled_images)))
    measured: list[str] = []
    scores = {
        part: dict.fromkeys(("k20_top1", "top1", "accuracy", "exact", "within_one"), 0.5)
        for part, _ in MEASURES.values()
    }
    monkeypatch.setattr(adapt, "measure", lambda folder, *_: measured.append(folder.name) or scores)
    results = adapt.adapt(tmp_path, "lite0", ["location"], [0], [], own_statistics=True)
    assert list(results) == [BEFORE, f"{BEFORE}, {adapt.OWN}", "location", f"location, {adapt.OWN}"]
    assert measured == ["untrained", "untrained-own", "teacher", "teacher-own"]
    assert (tmp_path / "location-seed0" / "teacher-own" / "model.safetensors").exists()


def test_statistics_of_a_backbone_without_any_are_refused_before_the_first_run(tmp_path, monkeypatch):
    AutoConfig.for_model(**DINO_V2).save_pretrained(tmp_path / "dinov2")
    monkeypatch.setattr(adapt, "adapt", lambda *_: pytest.fail("trains"))
    (tmp_path / "out" / "data").mkdir(parents=True)
    with pytest.raises(OwnStatisticsError, match="dinov2 has no BatchNorms, .*: leave out --own_statistics"):
        main([str(tmp_path / "out"), "--backbone", str(tmp_path / "dinov2"), "--own_statistics"])


@pytest.mark.slow
def test_adaptation(tmp_path, capsys):
    """Before are the weights of the backbone, for all kinds; nothing is repeated."""
    AutoBackbone.from_config(AutoConfig.for_model(**DINO_V2)).save_pretrained(tmp_path / "dinov2")
    given = [
        str(tmp_path / "out"),
        "--backbone",
        str(tmp_path / "dinov2"),
        "--arms",
        "view",
        "location",
        "--seeds",
        "0",
    ]
    given += ["--per_photograph", "6", "2", "--max_steps", "3", "--workers", "0"]
    main(given)
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results) == [BEFORE, "view", "location"]
    assert printed.strip().endswith((tmp_path / "out" / "results.md").read_text().strip())
    assert all(0 <= value <= 1 for values in results.values() for [value] in values.values())
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*-scores.json")}
    main(given)
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*-scores.json")} and len(made) == 3
