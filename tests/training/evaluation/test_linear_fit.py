# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks linear classifiers against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

import training.evaluation.linear_fit as feature_classifiers
from training.evaluation.knn import knn_predict
from training.evaluation.linear_fit import (
    HeldOutError,
    choose_l2_by_accuracy,
    draw_held_out,
    draw_shots,
    fit_logistic,
    fit_one_vs_rest,
    fit_ridge,
)


def test_one_vs_rest_equals_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(90, 5, generator=generator)
    targets = (features @ torch.randn(5, 3, generator=generator) + torch.randn(90, 3, generator=generator) > 0).long()
    for l2, linear in zip((0.1, 0.01), fit_one_vs_rest(features, targets, 3, [0.1, 0.01]), strict=True):
        judge = OneVsRestClassifier(LogisticRegression(C=1 / (l2 * 90), tol=1e-8, max_iter=5000))
        expected = judge.fit(features.double().numpy(), targets.numpy()).predict_proba(features.double().numpy())
        np.testing.assert_allclose(linear.score(features).sigmoid().numpy(), expected, atol=2e-5)


def random_data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(60, 7, generator=generator), torch.randint(4, (60,), generator=generator)
    return features * 2 + 3 + labels[:, None], labels


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The handwritten digits that come with scikit-learn, a third of them."""
    data = load_digits()
    return torch.tensor(data.data[::3], dtype=torch.float32) / 16, torch.tensor(data.target[::3])


@pytest.mark.parametrize("data", [random_data, digits])
def test_equals_scikit_learn(data, monkeypatch):
    monkeypatch.setattr(feature_classifiers, "ROWS", 50)
    features, labels = data()
    classes, penalties = int(labels.max()) + 1, [1e-1, 1e-3]
    for l2, ours in zip(penalties, fit_logistic(features, labels, classes, penalties), strict=True):
        judge = LogisticRegression(C=1 / (l2 * len(labels)), tol=1e-8, max_iter=5000)
        judge.fit(features.double().numpy(), labels.numpy())
        probabilities = F.linear(features.double(), *ours).softmax(dim=1).numpy()
        np.testing.assert_allclose(probabilities, judge.predict_proba(features.double().numpy()), atol=2e-4)
    for l2, ours in zip(penalties, fit_ridge(features, labels, classes, penalties), strict=True):
        ridge = RidgeClassifier(alpha=l2 * len(labels)).fit(features.double().numpy(), labels.numpy())
        np.testing.assert_allclose(ours.weight.numpy(), ridge.coef_, atol=1e-6)
        np.testing.assert_allclose(ours.bias.numpy(), ridge.intercept_, atol=1e-6)
        assert np.array_equal(ours.rank(features)[:, 0].numpy(), ridge.predict(features.double().numpy()))


def test_neighbours_equal_scikit_learn():
    features, labels = digits()
    train, test, truth = features[:400], features[400:], labels[:400]
    unit = [F.normalize(each, dim=1).double().numpy() for each in (train, test)]
    judge = KNeighborsClassifier(
        9, algorithm="brute", metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(unit[0], truth)
    ours = knn_predict(train, truth, test, k=[9], num_classes=10)[9][:, 0]
    assert np.array_equal(ours.numpy(), judge.predict(unit[1]))


@pytest.mark.parametrize("fit", [fit_logistic, fit_ridge])
def test_penalty_is_chosen_on_what_was_held_out(fit):
    features, labels = digits()
    l2, scores = choose_l2_by_accuracy(fit, features, labels, 10, [1e-3, 1e3], share=0.2, seed=0)
    assert l2 == 1e-3 and scores[1e-3] > scores[1e3]
    aside = draw_held_out(labels, 0.2, seed=0)
    assert [int((labels[aside] == label).sum()) for label in range(10)] == [
        round(0.2 * int((labels == label).sum())) for label in range(10)
    ]
    assert not torch.equal(aside, draw_held_out(labels, 0.2, seed=1))
    with pytest.raises(HeldOutError, match="given one --l2"):
        draw_held_out(torch.arange(5), 0.2, seed=0)


@pytest.mark.parametrize("fit", [fit_logistic, fit_ridge])
def test_one_class(fit):
    [linear] = fit(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64), 1, [0.1])
    assert linear.rank(torch.randn(2, 3)).tolist() == [[0, -1, -1, -1, -1]] * 2


def test_shots_of_each_class():
    labels = torch.tensor([0] * 30 + [1] * 7 + [2])
    for shots, counts in (("10%", [3, 1, 1]), ("5", [5, 5, 1]), ("100%", [30, 7, 1]), ("0.1%", [1, 1, 1])):
        rows = draw_shots(labels, shots, seed=0)
        assert labels[rows].bincount().tolist() == counts and len(set(rows.tolist())) == len(rows)
    assert torch.equal(draw_shots(labels, "5", 1), draw_shots(labels, "5", 1))
    assert not torch.equal(draw_shots(labels, "5", 1), draw_shots(labels, "5", 0))
    for wrong in ("0", "101%", "few", "-1", "nan%"):
        with pytest.raises(HeldOutError, match=wrong):
            draw_shots(labels, wrong, seed=0)
