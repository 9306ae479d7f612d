# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that figures of correspondences show the matches and the curves."""

import numpy as np

from training.figures.matching import draw_curves, draw_pairs
from training.matching.measures import ALPHAS
from training.matching.top_matches import TopMatches


def test_each_match_is_a_line_between_the_views():
    view, ends = np.zeros((50, 100, 3), np.uint8), np.array([[10.0, 20.0], [30.0, 40.0]])
    figure = draw_pairs({"crops": [TopMatches((view, view), ends, ends + 1, np.array([True, False]))] * 2})
    assert len(figure.axes) == 2 and figure.axes[0].get_title() == "crops\n1 of 2 right"
    [lines] = [each for each in figure.axes[0].collections if hasattr(each, "get_segments")]
    assert [segment.tolist() for segment in lines.get_segments()] == [[[10, 20], [117, 21]], [[30, 40], [137, 41]]]


def test_curves_of_model_and_guesses():
    scores = {f"{guess}pck_{alpha:g}": alpha for guess in ("", "nearest_", "chance_") for alpha in ALPHAS}
    figure = draw_curves({"crops": scores, "stereo": scores | {f"pck_{ALPHAS[0]:g}": None}})
    assert [axes.get_title() for axes in figure.axes] == ["crops", "stereo"]
    model = {line.get_label(): line.get_ydata() for line in figure.axes[1].lines}["this model"]
    assert np.isnan(model[0]) and model[1:].tolist() == list(ALPHAS[1:])


def test_models_stand_beside_each_other():
    scores = {f"{guess}pck_{alpha:g}": alpha for guess in ("", "nearest_", "chance_") for alpha in ALPHAS}
    other = {f"pck_{alpha:g}": alpha / 2 for alpha in ALPHAS}
    figure = draw_curves({"crops": scores}, "mine", {"untrained": {"crops": other}})
    lines = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[0].lines}
    assert list(lines) == ["nearest region (mine)", "mine", "untrained", "at random (mine)"]
    assert lines["untrained"] == [alpha / 2 for alpha in ALPHAS] and lines["mine"] == list(ALPHAS)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(lines)

    view, ends = np.zeros((50, 100, 3), np.uint8), np.array([[10.0, 20.0]])
    drawn = TopMatches((view, view), ends, ends, np.array([True]))
    figure = draw_pairs({"crops": [drawn] * 2}, ["mine", "untrained"])
    assert [axes.get_title() for axes in figure.axes] == ["crops\nmine: 1 of 1 right", "untrained: 1 of 1 right"]
