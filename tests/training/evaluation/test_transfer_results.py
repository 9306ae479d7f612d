# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks results of the transfer evaluation: differences from the table, failures, comparisons, other files."""

from argparse import Namespace
from dataclasses import replace

import pytest

from modeling_esvit.images.data_errors import DataNotFoundError
from training.evaluation.transfer_results import compare, describe_failure, find_differences, read_result, summarise
from training.evaluation.transfer_sets import TransferSet, TransferTableError


def test_what_differs_from_the_table_is_noted():
    each = TransferSet("x", "a:train", "a:test", classes=3, sizes=(30, 12))
    found = {"train_images": 30, "test_images": 11, "classes": 3, "unknown_class_images": 2}
    assert find_differences(each, found) == [
        "11 test images, not 12",
        "2 test images of no training class, counted as wrong",
    ]
    assert find_differences(replace(each, classes=None, sizes=None), found | {"unknown_class_images": 0}) == []


def test_a_failure_has_its_reason_in_one_cell():
    found = describe_failure(TransferSet("x", "a:train", "a:test"), DataNotFoundError("no a|b\n here"))
    assert (found["status"], found["reason"], found["train"]) == ("missing", "no a/b here", "a:train")


def test_models_are_compared_where_both_were_measured_alike():
    def measured(score: float, metric: str = "accuracy") -> dict:
        return {"status": "measured", "metric": metric, "score": score}

    ours = {"a": measured(0.5), "b": measured(0.5), "c": measured(0.5), "d": {"status": "failed", "metric": "accuracy"}}
    theirs = {"a": measured(0.25), "b": measured(0.5), "c": measured(0.1, "roc_auc"), "d": measured(1.0)}
    found = compare(ours, "theirs", theirs)
    assert (found["compared"], found["wins"], found["ties"]) == (2, 1, 1)
    assert (found["average"], found["average_of_model"]) == (0.375, 0.5)
    total = summarise(Namespace(model="m", n_last_blocks=None), ours)
    assert (total["average"], total["measured"], total["data"]) == (0.5, 3, "3 of 4 data sets")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"model": "x"}', b'{"datasets": {}}', b"\x89PNG"])
def test_a_file_of_other_content_is_no_result(tmp_path, content):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(TransferTableError, match="r.json is not a result of transfer.py"):
        read_result(tmp_path / "r.json")
