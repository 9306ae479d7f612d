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
    result = {"model": "org/x", "train_images": 300} | {f"k{k}_top{top}": top / k for k in counts for top in (1, 5)}
    axes = axes_of(draw_knn(result), tmp_path)
    assert line(axes, "top-1") == [[k, 1 / k] for k in sorted(counts)]
    assert line(axes, "top-5") == [[k, 5 / k] for k in sorted(counts)]
    assert [text.get_text() for text in axes.get_xticklabels()] == [str(k) for k in sorted(counts)]
    assert axes.get_title() == "k-NN of org/x"


def probe_result(names, epochs):
    history = [
        {name: {"top1": (1 + number + epoch) / 100} for number, name in enumerate(names)} for epoch in range(epochs)
    ]
    best = {"epoch": epochs, **history[-1][names[-1]]}
    return {
        "model": "x",
        "best": names[-1],
        "history": history,
        "classifiers": {name: {"best": best} for name in names},
    }


@pytest.mark.parametrize("epochs", [1, 5])
def test_probe(epochs, tmp_path):
    axes = axes_of(draw_probe(probe_result(["n1_lr0.1", "n4_lr1"], epochs)), tmp_path)
    assert line(axes, "n1_lr0.1") == [[epoch + 1, (1 + epoch) / 100] for epoch in range(epochs)]
    assert labels(axes) == ["n1_lr0.1", "n4_lr1"]
    (star,) = [line for line in axes.lines if line.get_marker() == "*"]
    assert np.stack(star.get_data(), axis=1).tolist() == [[epochs, (1 + epochs) / 100]]


def test_a_legend_of_many_names_the_best(tmp_path):
    names = [f"n1_lr{number}" for number in range(MOST_NAMED + 1)]
    axes = axes_of(draw_probe(probe_result(names, 2)), tmp_path)
    assert labels(axes) == [names[-1]] and len(axes.lines) == len(names) + 1


@pytest.mark.parametrize("held_out", [{}, {"0.0001": 0.5, "1": 0.25}])
def test_stored_features(held_out, tmp_path):
    result = {"model": "x", "solver": "logistic", "l2": 1e-4, "top1": 0.75, "top5": 1.0, "held_out_top1": held_out}
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
    axes = axes_of(draw_stored_features({"model": "x", "solver": "ridge", "classes": 4, "low_shot": rows}), tmp_path)
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
