# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the files of a result, and its figures for a model card."""

import json

import pytest
from matplotlib.figure import Figure

from tests.helpers.commands import type_arguments
from training.evaluation.result_files import ChangedResultError, read_result_file
from training.evaluation.results import (
    describe_counts,
    find_test_data,
    format_table,
    make_card_values,
    make_knn_values,
    write_result,
)
from training.options.provenance import find_provenance


def test_figures_of_knn_name_measure_data_and_split():
    data = find_provenance("org/birds:test")
    result = {"k10_top1": 0.4, "k20_top1": 0.5, "k20_top5": 0.75, "k100_top1": 0.6, "classes": 4}
    (one,) = make_knn_values(result, data, {"k20_top1": 0.3})
    assert (one.chance, one.before) == (0.25, 0.3)
    assert (one.name, one.value, one.metric, one.dataset, one.split) == (
        *("k-NN top-1, k = 20", 0.5, "accuracy"),
        *("org/birds", "test"),
    )
    assert one.task == "image-classification"
    (other,) = make_knn_values({"k3_top1": 0.4, "k5_top1": 0.6, "classes": 4}, data)
    assert (other.name, other.value, other.before) == ("k-NN top-1, k = 5", 0.6, None)


def test_data_of_this_machine_have_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "patients" / "ada").mkdir(parents=True)
    names = ("patients/ada:bob", "https://h/ada.tar")
    figures = [figure for name in names for figure in make_card_values({"x": 0.5}, find_provenance(name))]
    assert [(figure.dataset, figure.split) for figure in figures] == [
        ("a folder of images", None),
        ("images at a URL", None),
    ]


def test_a_held_out_share_is_named_as_part_of_its_data(tmp_path):
    def name(train, test, share):
        found = find_test_data({"train": train, "test": test, "test_share": share})
        return found.public_data, found.split

    assert name("org/birds:train", None, 0.2) == ("org/birds", "20% of each class of train")
    assert name(str(tmp_path), None, 0.15) == ("a folder of images", "15% of each class")
    assert name("org/birds:train", "org/birds:test", None) == ("org/birds", "test")


@pytest.mark.parametrize("unknown, said", [(0, []), (1, ["1 test image"]), (2, ["2 test images"])])
def test_images_of_no_training_class_are_counted(unknown, said):
    result = {"classes": 3, "train_images": 8, "test_images": 4, "unknown_class_images": unknown}
    lines = describe_counts(result)
    assert lines[0] == "3 classes, 8 training and 4 test images."
    assert lines[1:] == [f"{images} of no training class, counted as wrong." for images in said]


def test_a_table_in_markdown():
    assert format_table(["a", "b"], [["1", "2"]]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]


def test_result_table_and_picture(tmp_path, monkeypatch, capsys):
    type_arguments(monkeypatch, "training/knn.py", "/secret/model", "--train", "/secret/a:train", "--output", "r.json")
    result, output = {"model": "/secret/model", "train": "a:train", "k20_top1": 0.5}, tmp_path / "new" / "my r.json"
    figures = make_card_values({"top-1": 0.5}, find_provenance("a:test"))
    write_result(result, "k-NN", "| table |", output, figures, draw=lambda result: Figure())
    written = json.loads(output.read_text())
    assert written["command"] == "python training/knn.py MODEL --train FOLDER:train"
    assert written["figures"][0]["value"] == 0.5 and written.items() > result.items()
    assert output.with_suffix(".md").read_text() == "# k-NN\n\ntrain: a:train\n\n| table |\n\n![k-NN](my%20r.png)\n\n"
    assert output.with_suffix(".png").exists() and capsys.readouterr().out == "| table |\n"
    assert read_result_file(output) == {
        name: value for name, value in written.items() if name not in ("checksum", "beside")
    }
    output.write_text(output.read_text().replace('"value": 0.5', '"value": 0.6'))
    with pytest.raises(ChangedResultError, match="my r.json is damaged or was changed. Delete it"):
        read_result_file(output)
    write_result(result, "k-NN", "| table |", output, details="| all |")
    assert output.with_suffix(".md").read_text().endswith("| table |\n\n| all |\n\n")
    assert capsys.readouterr().out == "| table |\n"
    write_result(result, "k-NN", "| table |", None)
    assert len(list(output.parent.iterdir())) == 3
