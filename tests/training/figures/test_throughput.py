# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the figure of throughput and accuracy."""

from itertools import combinations

from training.figures.throughput import draw
from training.throughput import read_published


def test_names_do_not_cover_each_other():
    """Nor marks of models, in the figure alone and where a fast model makes it narrow."""
    fast = {"images_per_second": 20_000.0}
    for models in ({}, {"fast": fast, "swin-tiny": {"images_per_second": 808.0, "linear": 77.4}}):
        figure = draw({"device": "x", "models": models}, read_published(), 1.0)
        [axes] = figure.axes
        names = [text.get_window_extent() for text in axes.texts if len(text.get_text()) > 1]
        marks = [text.get_window_extent() for text in axes.texts if len(text.get_text()) == 1]
        assert len(names) == 15 and all(axes.bbox.count_contains(name.corners()) == 4 for name in names)
        assert not any(one.overlaps(other) for one, other in combinations(names, 2))
        assert not any(mark.overlaps(name) for mark in marks for name in names)
