# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that figures of accuracies show what the results say, of one value and of many."""

import numpy as np
import pytest

from training.figures.accuracy import MOST_NAMED, draw_epochs, draw_knn, draw_probe, draw_stored_features


def axes_of(figure, path):
    """Returns the only axes of a figure, after drawing it."""
    figure.savefig(path / "picture.png")
    (axes,) = figure.axes
    return axes


def line(axes, label):
    (found,) = [line for line in axes.lines if line.get_label() == label]
    return np.stack(found.get_data(), axis=1).tolist()


def labels(axes):
    return [text.get_text() for text in axes.figure.legends[0].get_texts()]


@pytest.mark.parametrize("counts", [[20], [200, 10, 20]])
def test_knn(counts, tmp_path):
    result = {"model": "org/x", "train_images": 300, "chance": 0.1, "against": {}}
    result |= {f"k{k}_top{top}": top / k for k in counts for top in (1, 5)}
    axes = axes_of(draw_knn(result), tmp_path)
    assert line(axes, "top-1") == [[k, 1 / k] for k in sorted(counts)]
    assert line(axes, "top-5") == [[k, 5 / k] for k in sorted(counts)]
    assert [text.get_text() for text in axes.get_xticklabels()] == [str(k) for k in sorted(counts)]
    assert axes.get_title() == "k-NN of org/x" and line(axes, "chance") == [[0, 0.1], [1, 0.1]]
    few = {name: value for name, value in result.items() if not name.endswith("top5")}
    assert labels(axes_of(draw_knn(few), tmp_path)) == ["top-1", "chance"]


def test_models_stand_beside_each_other_and_chance(tmp_path):
    others = {"untrained": {"k10_top1": 0.2, "k20_top1": 0.3}, "org/y": {"k10_top1": 0.4, "k20_top1": 0.5}}
    result = {"model": "org/x", "k10_top1": 0.8, "k20_top1": 0.7, "k10_top5": 1.0, "k20_top5": 1.0}
    axes = axes_of(draw_knn(result | {"chance": 0.1, "against": others}), tmp_path)
    assert labels(axes) == ["org/x", "untrained", "org/y", "chance"] and axes.get_ylabel() == "top-1"
    assert line(axes, "org/x") == [[10, 0.8], [20, 0.7]] and line(axes, "org/y") == [[10, 0.4], [20, 0.5]]
    assert len({each.get_color() for each in axes.lines}) == 4

    other = probe_result(["n0_lr1"], 3)
    axes = axes_of(draw_probe(probe_result(["n1_lr0.1", "n4_lr1"], 3) | {"against": {"untrained": other}}), tmp_path)
    assert labels(axes) == ["x (n4_lr1)", "untrained (n0_lr1)", "chance"]
    assert line(axes, "x (n4_lr1)") == [[1, 0.02], [2, 0.03], [3, 0.04]]

    stored = {"model": "x", "solver": "ridge", "l2": 1.0, "top1": 0.75, "held_out_top1": {}, "chance": 0.1}
    axes = axes_of(draw_stored_features(stored | {"against": {"untrained": {"l2": 2.0, "top1": 0.5}}}), tmp_path)
    assert labels(axes) == ["test images", "test images, untrained", "chance"]
    assert line(axes, "test images, untrained") == [[2.0, 0.5]]

    rows = [{"shots": "1", "images": 4, "ridge": [0.5], "knn": [0.25]}]
    low = {"model": "x", "solver": "ridge", "classes": 4, "chance": 0.1, "low_shot": rows}
    axes = axes_of(draw_stored_features(low | {"against": {"untrained": {"low_shot": rows}}}), tmp_path)
    assert line(axes, "untrained, ridge") == [[1, 0.5]]


def probe_result(names, epochs):
    history = [
        {name: {"top1": (1 + number + epoch) / 100} for number, name in enumerate(names)} for epoch in range(epochs)
    ]
    best = {"epoch": epochs, **history[-1][names[-1]]}
    return {
        "model": "x",
        "against": {},
        "chance": 0.1,
        "best": names[-1],
        "history": history,
        "classifiers": {name: {"best": best} for name in names},
    }


@pytest.mark.parametrize("epochs", [1, 5])
def test_probe(epochs, tmp_path):
    axes = axes_of(draw_probe(probe_result(["n1_lr0.1", "n4_lr1"], epochs)), tmp_path)
    assert line(axes, "n1_lr0.1") == [[epoch + 1, (1 + epoch) / 100] for epoch in range(epochs)]
    assert labels(axes) == ["n1_lr0.1", "n4_lr1", "chance"]
    (star,) = [line for line in axes.lines if line.get_marker() == "*"]
    assert np.stack(star.get_data(), axis=1).tolist() == [[epochs, (1 + epochs) / 100]]


def test_a_legend_of_many_names_the_best(tmp_path):
    names = [f"n1_lr{number}" for number in range(MOST_NAMED + 1)]
    axes = axes_of(draw_probe(probe_result(names, 2)), tmp_path)
    assert labels(axes) == [names[-1], "chance"] and len(axes.lines) == len(names) + 2


@pytest.mark.parametrize("held_out", [{}, {"0.0001": 0.5, "1": 0.25}])
def test_stored_features(held_out, tmp_path):
    result = {"model": "x", "solver": "logistic", "l2": 1e-4, "top1": 0.75, "top5": 1.0, "held_out_top1": held_out}
    result |= {"chance": 0.1, "against": {}}
    axes = axes_of(draw_stored_features(result), tmp_path)
    assert line(axes, "test images") == [[1e-4, 0.75]]
    if held_out:
        assert line(axes, "held-out part of the training images") == [[1e-4, 0.5], [1.0, 0.25]]


@pytest.mark.parametrize("seeds", [1, 3])
def test_low_shot(seeds, tmp_path):
    rows = [
        {"shots": shots, "images": images, "ridge": [0.1 * seed for seed in range(seeds)], "knn": [0.5] * seeds}
        for shots, images in (("10%", 40), ("1", 4))
    ]
    result = {"model": "x", "solver": "ridge", "classes": 4, "low_shot": rows, "chance": 0.1, "against": {}}
    axes = axes_of(draw_stored_features(result), tmp_path)
    means = {container.get_label(): container.lines[0].get_data(orig=False) for container in axes.containers}
    assert set(means) == {"ridge", "k-NN"} and means["ridge"][0].tolist() == [1, 10]
    assert np.allclose(means["ridge"][1], 0.1 * (seeds - 1) / 2) and np.allclose(means["k-NN"][1], 0.5)
    (bars,) = axes.containers[0].lines[2]
    spreads = [segment[1][1] - segment[0][1] for segment in bars.get_segments()]
    assert np.allclose(spreads, 0 if seeds == 1 else 2 * 0.1)  # a sample standard deviation up and down


def test_epochs(tmp_path):
    history = [{"epoch": float(epoch), "top1": 0.1 * epoch, "top5": 1.0} for epoch in (1, 2, 3)]
    axes = axes_of(draw_epochs({"model": "x", "history": history}), tmp_path)
    assert line(axes, "top-1") == [[epoch, 0.1 * epoch] for epoch in (1, 2, 3)]
    assert {0, 1, 2, 3, 4} >= {float(mark) for mark in axes.get_xticks()} >= {1, 2, 3}
