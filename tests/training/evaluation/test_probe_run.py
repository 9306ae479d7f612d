# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the options of a linear probe, and how its test labels are numbered."""

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch

from training.evaluation.class_names import ClassNameError
from training.evaluation.probe_run import ProbeError, check_probe_options, fit_batch_size, number_labels


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"lr": [0.1, float("inf")]}, r"each lr positive and finite.*got 1, \[0.1, inf\] and \[0\]"),
        ({"n_last_blocks": [-1]}, "each n_last_blocks at least 0"),
        ({"n_last_blocks": [0, 4]}, "n_last_blocks 0, the view feature, stands alone"),
        ({"batch_size": 9}, "batch_size 9 must be a multiple of the 2 processes"),
    ],
)
def test_impossible_options_are_named(changes, message):
    given = {"epochs": 1, "lr": [0.1], "n_last_blocks": [0], "batch_size": 8}
    check_probe_options(Namespace(**given), world=2)
    with pytest.raises(ProbeError, match=message):
        check_probe_options(Namespace(**given | changes), world=2)


def test_classes_are_numbered_by_name_or_by_number():
    bank = SimpleNamespace(labels=torch.tensor([0, 1, 2]), class_names=["b", "x", "a"])
    labels, count = number_labels(SimpleNamespace(class_names=["a", "b"]), bank, None)
    assert (labels.tolist(), count) == ([1, -1, 0], 2)
    numbered = SimpleNamespace(labels=torch.tensor([0, 1, 2]), class_names=["1", "10", "0"])  # folders
    labels, count = number_labels(SimpleNamespace(class_names=None), numbered, 2)
    assert (labels.tolist(), count) == ([1, -1, 0], 2)
    unnamed = SimpleNamespace(labels=torch.tensor([1, 10, 0]), class_names=None)
    labels, _ = number_labels(SimpleNamespace(class_names=["0", "1"]), unnamed, None)
    assert labels.tolist() == [1, -1, 0]
    with pytest.raises(ClassNameError, match="numbers without names"):
        number_labels(SimpleNamespace(class_names=None), bank, 2)
    with pytest.raises(ProbeError, match="Give the number of classes with --num_classes"):
        number_labels(SimpleNamespace(class_names=None), numbered, None)


def test_batches_are_small_enough_for_ten_steps_an_epoch():
    assert [fit_batch_size(images, 1) for images in (5, 95, 3000, 1_280_000)] == [1, 9, 300, 1024]
    assert [fit_batch_size(images, 4) for images in (5, 95, 3000)] == [4, 8, 300]
