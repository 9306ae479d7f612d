# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks results of the transfer evaluation: differences from the table, failures, comparisons, other files."""

from dataclasses import replace

from training.evaluation.transfer_results import find_differences
from training.evaluation.transfer_sets import (
    TransferSet,
)


def test_what_differs_from_the_table_is_noted():
    each = TransferSet("x", "a:train", "a:test", classes=3, sizes=(30, 12))
    found = {"train_images": 30, "test_images": 11, "classes": 3, "unknown_class_images": 2}
    assert find_differences(each, found) == [
        "11 test images, not 12",
        "2 test images belong to no training class and count as wrong",
    ]
    assert find_differences(replace(each, classes=None, sizes=None), found | {"unknown_class_images": 0}) == []
