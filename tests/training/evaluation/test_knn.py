# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the k-NN classifier against the original and against a plain form.

`fixtures/knn.safetensors` holds random features, and the accuracies that running the MIT-licensed original
microsoft/esvit (`eval_knn.py`) gave for them.
"""

import evaluate
import pytest
import torch
from safetensors.torch import load_file

import training.evaluation.knn as knn
from tests.helpers.paths import FIXTURES
from training.evaluation.scores import METRIC


@pytest.fixture(scope="module")
def golden():
    return load_file(FIXTURES / "knn.safetensors")


@pytest.mark.parametrize("num_classes", [12, 1000])
@pytest.mark.parametrize("count", [200, 257])  # the original's chunks divide 200 only
def test_equals_the_original(golden, count, num_classes):
    labels = golden[f"n{count}.test_labels"]
    rankings = knn.knn_predict(
        golden["train_features"],
        golden["train_labels"],
        golden[f"n{count}.test_features"],
        k=[5, 20],
        num_classes=num_classes,
        chunk_size=64,
    )
    metric = evaluate.load(str(METRIC), keep_in_memory=True)
    for k in (5, 20):
        scores = metric.compute(predictions=rankings[k].numpy(), references=labels.numpy(), top_k=(1, 5))
        top1, top5 = golden[f"n{count}.k{k}.classes{num_classes}.top1_top5"].tolist()
        assert 100 * scores["top1"] == pytest.approx(top1, abs=1e-9)
        if k == 20:  # of 5 neighbours the original fills up the first five classes with ones nobody voted for
            assert 100 * scores["top5"] == pytest.approx(top5, abs=1e-9)


def test_chunks_change_nothing(golden, monkeypatch):
    features, labels, queries = golden["train_features"], golden["train_labels"], golden["n257.test_features"]
    options = {"k": [1, 3, 50, 360], "num_classes": 12}
    whole = knn.knn_predict(features, labels, queries, chunk_size=10**6, **options)
    monkeypatch.setattr(knn, "BANK_CHUNK", 17)  # less than k, and no divisor of the bank's 360 rows
    chunked = knn.knn_predict(features, labels, queries, chunk_size=10, **options)
    assert all(torch.equal(whole[k], chunked[k]) for k in options["k"])

    votes = (queries.double() @ features.double().T / 0.07).exp() @ torch.eye(12, dtype=torch.float64)[labels]
    assert torch.equal(whole[360], votes.topk(5).indices)  # with all neighbours, the plain form of the vote


def test_ties_are_decided_by_order():
    bank = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 0.0], [5.0, 0.0]])  # three equal directions
    query = torch.tensor([[1.0, 0.0]])
    labels = torch.tensor([0, 3, 1, 2])
    rankings = knn.knn_predict(bank, labels, query, k=[1, 2, 3], num_classes=4)
    assert rankings[1].tolist() == [[3, -1, -1, -1, -1]]  # the earliest neighbour
    assert rankings[2].tolist() == [[1, 3, -1, -1, -1]]  # equal votes: the lower class
    assert rankings[3].tolist() == [[1, 2, 3, -1, -1]]


def test_any_temperature_is_finite():
    bank, query = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), torch.tensor([[1.0, 0.1]])
    labels = torch.tensor([2, 1, 0])
    for temperature in (1e-6, 1e6):
        ranking = knn.knn_predict(bank, labels, query, k=[3], num_classes=3, temperature=temperature)[3]
        assert ranking[0, 0] == 2


@pytest.mark.parametrize("k", [[], [0], [5, 4]])
def test_impossible_neighbour_counts(k):
    features = torch.eye(4)
    with pytest.raises(knn.NeighbourCountError, match="from 1 to 4"):
        knn.knn_predict(features, torch.arange(4), features, k=k, num_classes=4)
    with pytest.raises(knn.TemperatureError):
        knn.knn_predict(features, torch.arange(4), features, k=[1], num_classes=4, temperature=0.0)
