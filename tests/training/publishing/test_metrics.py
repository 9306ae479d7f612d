# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that a card takes results of the published model, wherever a copy of it was measured, and of no other."""

import json
import sys

import pytest

from tests.helpers.tiny_models import save_with_heads
from training.evaluation import results
from training.evaluation.results import CardValue
from training.publish import main
from training.publishing.metrics import check_measured, has_same_backbone, is_valid, read_metrics
from training.publishing.source import SourceError


FIGURE = {"name": "top-1", "value": 0.5, "metric": "accuracy", "dataset": "birds", "split": None}


def write_result(path, model):
    path.write_text(json.dumps({"model": str(model), "command": "python x MODEL", "figures": [FIGURE]}))
    return path


def test_a_result_of_another_model_is_refused(tmp_path):
    save_with_heads(tmp_path / "model")
    save_with_heads(tmp_path / "other", window_size=2, depths=[1, 2])
    main([str(tmp_path / "model"), "--repo_id", "ada/x", "--dry_run"])
    assert has_same_backbone(tmp_path / "model-hub", tmp_path / "model")
    for name in ("model", "model-hub", "gone", "org/name"):
        figures, command = read_metrics(write_result(tmp_path / "x.json", tmp_path / name), "ada/x", tmp_path / "model")
        assert command == "`python x ada/x`" and is_valid(figures[0])
    write_result(tmp_path / "x.json", tmp_path / "other")
    with pytest.raises(SystemExit, match="x.json has the values of .*other, which is another model than .*model"):
        main([str(tmp_path / "model"), "--repo_id", "ada/x", "--dry_run", "--metrics", str(tmp_path / "x.json")])


def test_a_result_that_has_changed_is_refused(tmp_path, monkeypatch):
    save_with_heads(tmp_path / "model")
    monkeypatch.setattr(sys, "argv", ["knn.py", str(tmp_path / "model")])
    file = tmp_path / "x.json"
    results.write_result({"model": str(tmp_path / "model")}, "k-NN", "", file, [CardValue(**FIGURE)])
    assert read_metrics(file, "ada/x", tmp_path / "model")[0] == [CardValue(**FIGURE)]
    file.write_text(file.read_text().replace("0.5", "0.7"))
    with pytest.raises(SystemExit, match="error: .*x.json is damaged or was changed. Delete it"):
        main([str(tmp_path / "model"), "--repo_id", "ada/x", "--dry_run", "--metrics", str(file)])


def test_a_run_stands_for_its_model(run, tmp_path):
    for name in (run, run / "teacher"):
        check_measured(tmp_path / "x.json", str(name), run / "teacher")
    save_with_heads(tmp_path / "other")
    with pytest.raises(SourceError, match="another model"):
        check_measured(tmp_path / "x.json", str(run), tmp_path / "other")


def test_a_command_of_another_model_is_refused(tmp_path):
    content = {"command": "python training/knn.py org/MODELS --test birds", "figures": [FIGURE]}
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(SourceError, match="x.json .*a command of another model"):
        read_metrics(tmp_path / "x.json", "ada/x", tmp_path)


@pytest.mark.parametrize("name", ["none.json", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(SourceError, match="--metrics: .* cannot be read"):
        read_metrics(tmp_path / name, "ada/x", tmp_path)
