# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks classifiers of stored features on classes that are easy to tell apart."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from training.evaluation.linear_fit import HeldOutError
from training.evaluation.stored_features import FitOptions, evaluate_features


OPTIONS = FitOptions("ridge", l2=[0.01], held_out=0.2, shots=None, seeds=[0])
CPU = torch.device("cpu")


def make_bank(count: int, seed: int, classes: int = 5) -> SimpleNamespace:
    """Returns a bank of features that are noisy corners of a cube, one corner a class."""
    labels = torch.arange(count) % classes
    noise = 0.1 * torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    features = torch.eye(6)[labels] + noise
    return SimpleNamespace(labels=labels, class_names=None, features=lambda: features)


@pytest.mark.parametrize("l2", [[0.01], [1e-3, 10.0]])
def test_a_classifier_and_its_penalty(l2):
    result = evaluate_features(replace(OPTIONS, l2=l2), make_bank(60, 0), make_bank(20, 1, classes=6), CPU)
    assert (result["train_images"], result["test_images"], result["classes"]) == (60, 20, 5)
    assert result["unknown_class_images"] == 3 and result["top1"] == 17 / 20
    assert result["l2"] == l2[-1] and len(result["held_out_top1"]) == (len(l2) if len(l2) > 1 else 0)


def test_low_shot_has_a_row_for_each_number_and_a_score_for_each_seed():
    options = replace(OPTIONS, shots=["1", "50%"], seeds=[0, 1, 2])
    result = evaluate_features(options, make_bank(60, 0), make_bank(20, 1), CPU)
    assert [(row["shots"], row["images"]) for row in result["low_shot"]] == [("1", 5), ("50%", 30)]
    for row in result["low_shot"]:
        assert row["ridge"] == row["knn"] == [1.0, 1.0, 1.0] or row["images"] == 5
        assert len(row["l2"]) == 3
    with pytest.raises(HeldOutError, match="'many' is neither a share such as 1%"):
        evaluate_features(replace(options, shots=["many"]), make_bank(60, 0), make_bank(20, 1), CPU)


def test_shots_that_are_too_few_are_skipped_by_name():
    """A share of 1% of 12 images is one image a class, none of which can be held out."""
    options = replace(OPTIONS, l2=[1e-3, 10.0], shots=["1%", "50%", "1"])
    result = evaluate_features(options, make_bank(60, 0), make_bank(20, 1), CPU)
    assert [row["shots"] for row in result["low_shot"]] == ["50%"] and result["chance"] == 0.2
    assert list(result["skipped"]) == ["1%", "1"]
    assert all("too few to hold out" in reason for reason in result["skipped"].values())
    with pytest.raises(HeldOutError, match="5 training images of 5 classes are too few"):
        evaluate_features(replace(options, shots=["1%"]), make_bank(60, 0), make_bank(20, 1), CPU)
