# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the figure of a transfer evaluation shows scores of both models, and what was not measured."""

from training.figures.transfer import draw


def test_dots_of_two_models():
    ours = {"a": {"metric": "accuracy", "status": "measured", "score": 0.5}, "b": {"metric": "f", "status": "missing"}}
    other = {"model": "theirs", "wins": 1, "ties": 0, "compared": 1, "datasets": {"a": ours["a"] | {"score": 0.25}}}
    [axes] = draw({"model": "mine", "datasets": ours, "against": other}).axes
    dots = {each.get_label(): each.get_offsets().tolist() for each in axes.collections}
    assert dots == {"theirs, average 25.0": [[25.0, 0.0]], "mine, average 50.0": [[50.0, 0.0]]}
    assert [text.get_text() for text in axes.texts] == ["missing"] and axes.get_title(
        "left"
    ) == "1 wins, 0 ties in 1 data sets"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a  (accuracy)", "b  (f)"]
