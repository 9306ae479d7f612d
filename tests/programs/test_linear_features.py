# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Linear classifiers of stored features, with scikit-learn as the judge; low-shot draws; the command."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F

import training.evaluation.linear_fit as feature_classifiers
import training.linear_features as linear_features
from modeling_esvit import EsViTConfig, EsViTModel
from tests.helpers.tiny_runs import write_images
from training.evaluation.knn import knn_predict
from training.evaluation.linear_fit import HeldOutError, chosen_l2, draw_shots, fit_logistic, fit_ridge, held_out
from training.options.command import run_command
from training.publishing.card import read_metrics
from training.publishing.card_template import to_percent


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
        assert np.array_equal(ours.ranking(features)[:, 0].numpy(), ridge.predict(features.double().numpy()))


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
    l2, scores = chosen_l2(fit, features, labels, 10, [1e-3, 1e3], share=0.2, seed=0)
    assert l2 == 1e-3 and scores[1e-3] > scores[1e3]
    aside = held_out(labels, 0.2, seed=0)
    assert [int((labels[aside] == label).sum()) for label in range(10)] == [
        round(0.2 * int((labels == label).sum())) for label in range(10)
    ]
    assert not torch.equal(aside, held_out(labels, 0.2, seed=1))
    with pytest.raises(HeldOutError, match="given one --l2"):
        held_out(torch.arange(5), 0.2, seed=0)


@pytest.mark.parametrize("fit", [fit_logistic, fit_ridge])
def test_one_class(fit):
    [linear] = fit(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64), 1, [0.1])
    assert linear.ranking(torch.randn(2, 3)).tolist() == [[0, -1, -1, -1, -1]] * 2


def test_shots_of_each_class():
    labels = torch.tensor([0] * 30 + [1] * 7 + [2])
    for shots, counts in (("10%", [3, 1, 1]), ("5", [5, 5, 1]), ("100%", [30, 7, 1]), ("0.1%", [1, 1, 1])):
        rows = draw_shots(labels, shots, seed=0)
        assert labels[rows].bincount().tolist() == counts and len(set(rows.tolist())) == len(rows)
    assert torch.equal(draw_shots(labels, "5", 1), draw_shots(labels, "5", 1))
    assert not torch.equal(draw_shots(labels, "5", 1), draw_shots(labels, "5", 0))
    for wrong in ("0", "101%", "few", "-1"):
        with pytest.raises(HeldOutError, match=wrong):
            draw_shots(labels, wrong, seed=0)


def mean_of(result: dict, row: int, name: str) -> float:
    """In percent, as on a card."""
    values = result["low_shot"][row][name]
    return round(100 * sum(values) / len(values), 2)


def test_command(tmp_path, monkeypatch):
    torch.manual_seed(0)
    sizes = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    EsViTModel(EsViTConfig(**sizes)).save_pretrained(tmp_path / "model")
    images = write_images(tmp_path / "train", 12, classes="ab"), write_images(tmp_path / "test", 8, classes="abc")
    data = ["--train", images[0], "--test", images[1], "--features", tmp_path / "features"]

    def command(*changes) -> dict:
        given = [tmp_path / "model", *data, "--output", tmp_path / "r.json", *changes]
        monkeypatch.setattr(sys, "argv", [linear_features.__file__, *map(str, given)])
        run_command(linear_features.main)
        return json.loads((tmp_path / "r.json").read_text())

    result = command("--l2", 1e-4, 1)
    assert set(result["held_out_top1"]) == {"0.0001", "1"} and result["unknown_class_images"] == 2
    assert 0 <= result["top1"] <= result["top5"] == 0.75  # two of eight are of no training class
    assert [figure["value"] for figure in result["figures"]] == [result["top1"], result["top5"]]
    with Image.open(tmp_path / "r.png") as picture:
        assert picture.format == "PNG"
    result = command("--solver", "ridge", "--shots", "50%", 1, "--seeds", 0, 1, "--l2", 0.1)
    assert [(row["shots"], row["images"], len(row["ridge"])) for row in result["low_shot"]] == [
        ("50%", 6, 2),
        ("1", 2, 2),
    ]
    assert "±" in (tmp_path / "r.md").read_text() and "](r.png)" in (tmp_path / "r.md").read_text()
    shown, how = read_metrics(tmp_path / "r.json", "ada/x")
    assert [(figure.name, to_percent(figure.value)) for figure in shown][:2] == [
        ("linear (ridge, stored features) top-1, 50% of each class, mean of 2 draws", mean_of(result, 0, "ridge")),
        ("k-NN top-1, 50% of each class, mean of 2 draws", mean_of(result, 0, "knn")),
    ]
    assert (len(shown), shown[0].dataset, shown[0].split) == (4, "test", None)
    options = "--solver ridge --shots 50% 1 --seeds 0 1 --l2 0.1"
    assert how == f"`python training/linear_features.py ada/x --train train --test test {options}`"
    with pytest.raises(SystemExit, match="given one --l2"):
        command("--shots", 1)
    with pytest.raises(SystemExit) as error:
        command("--l2", 1, "nan")
    assert error.value.code == 2  # of wrong arguments
