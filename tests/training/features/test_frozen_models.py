# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the names of frozen models, and the size and statistics of what they see."""

import sys
from types import SimpleNamespace

import pytest

from training.features.frozen_models import FrozenModelError, find_training_view, load_frozen, make_file_name


STATISTICS = {"image_mean": (0.5,), "image_std": (0.25,)}
SIZE = {"height": 8, "width": 6}


@pytest.mark.parametrize(
    "processing",
    [
        {"do_center_crop": True, "crop_size": SIZE, "size": {"shortest_edge": 9}, **STATISTICS},
        {"do_center_crop": False, "crop_size": None, "size": SIZE, **STATISTICS},
        {"do_center_crop": None, "crop_size": None, "size": {"shortest_edge": 8}, "crop_pct": 0.9, **STATISTICS},
        {"input_size": (3, 8, 6), "mean": (0.5,), "std": (0.25,)},
    ],
)
def test_the_view_of_training_has_the_size_of_the_evaluation(processing):
    model = SimpleNamespace(name="x", settings={"processing": processing})
    assert find_training_view(model) == ((8, 8 if "crop_pct" in processing else 6), (0.5,), (0.25,))


def test_a_processor_without_a_size_is_named():
    model = SimpleNamespace(name="org/x", settings={"processing": {"size": {"shortest_edge": 9}}})
    with pytest.raises(FrozenModelError, match="the image processor of org/x does not name its size"):
        find_training_view(model)


def test_files_are_named_after_the_last_two_parts():
    assert make_file_name("/a/runs/mine/teacher/") == "mine-teacher"
    assert make_file_name("timm:resnet 18.a1") == "timm-resnet-18.a1"


def test_timm_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(FrozenModelError, match="timm:resnet18 needs timm: pip install timm"):
        load_frozen("timm:resnet18")
