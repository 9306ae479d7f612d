# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how the penalty of a data set is searched."""

import pytest
import torch

import training.evaluation.transfer_metrics as transfer_metrics
from training.evaluation.linear_fit import HeldOutError
from training.evaluation.transfer_search import L2, Standardisation, choose_l2, search_l2, split_for_tuning


def test_search_goes_from_coarse_to_fine():
    assert len(L2) == 97 and L2[0] == pytest.approx(1e-6) and L2[-1] == pytest.approx(1e6)
    for best in (0, 5, 37, 48, 96):
        calls: list[int] = []

        def evaluate(values, best=best, calls=calls):
            calls.extend(values)
            return [-abs(L2.index(value) - best) for value in values]

        found, scores = search_l2(evaluate)
        assert found == L2[best] and len(calls) == len(set(calls)) <= 15 and list(scores) == sorted(calls)
    assert search_l2(lambda values: [0.5] * len(values))[0] == L2[-1]  # of equal ones the largest


def test_standardised_features():
    features = torch.randn(50, 3) * torch.tensor([1e3, 1.0, 0.0]) + 7
    standard = Standardisation.from_features(features)(features)
    torch.testing.assert_close(standard.mean(dim=0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(standard.std(dim=0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-3, rtol=0)


def test_parts_for_tuning():
    labels = torch.tensor([0, 1] * 20)
    training, aside = split_for_tuning(labels, 10, per_class=3, seed=0)
    assert aside.tolist() == list(range(30, 40)) and labels[training].bincount().tolist() == [3, 3]
    training, aside = split_for_tuning(labels, 0, per_class=None, seed=0)
    assert labels[aside].bincount().tolist() == [4, 4] and not set(training.tolist()) & set(aside.tolist())
    training, aside = split_for_tuning(torch.ones(10, 3), 0, per_class=None, seed=0)
    assert len(training) == 8 and len(aside) == 2
    for impossible in (torch.arange(4), torch.ones(1, 3)):
        with pytest.raises(HeldOutError):
            split_for_tuning(impossible, 0, per_class=None, seed=0)


def test_penalty_is_chosen_by_the_metric(monkeypatch):
    """Noise beside one useful feature, few images: a larger penalty than the smallest is better."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(2, (200,), generator=generator)
    features = torch.randn(200, 40, generator=generator)
    features[:, 0] += 2 * labels
    parts, steps = split_for_tuning(labels, 0, per_class=15, seed=0), []
    l2, scores = choose_l2("roc_auc", features, labels, 2, parts, lambda: steps.append(1))
    assert 1e-6 < l2 and scores[l2] == max(scores.values()) > scores[L2[0]] and len(steps) == len(scores)
    monkeypatch.setitem(transfer_metrics.METRICS, "roc_auc", lambda *_: 0.0)
    assert choose_l2("roc_auc", features, labels, 2, parts, lambda: None)[0] == L2[-1]
