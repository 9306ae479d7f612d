# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the 11-point average precision by hand."""

import pytest
import torch

from training.evaluation.transfer_metrics import score


def test_eleven_point_average_precision_by_hand():
    """Ranks of the three positives of five: 1, 3, 4. Precisions 1, 2/3, 3/4 at the recalls 1/3, 2/3, 1."""
    scores = torch.tensor([[5.0], [4.0], [3.0], [2.0], [1.0]])
    targets = torch.tensor([[1], [0], [1], [1], [0]])
    expected = (4 * 1 + 7 * 3 / 4) / 11  # the points 0 .. 0.3, and 0.4 .. 1
    assert score("map_11_point", scores, targets) == pytest.approx(expected)

    two = torch.cat([scores, -scores, scores], dim=1)  # the second class in the opposite order, the third never there
    present = torch.cat([targets, targets, torch.zeros_like(targets)], dim=1)
    # Ranks 2, 3, 5: precisions 1/2, 2/3, 3/5 at 1/3, 2/3, 1; the best from each point on: 2/3 up to 0.6, then 3/5.
    reverse = (7 * 2 / 3 + 4 * 3 / 5) / 11
    assert score("map_11_point", two, present) == pytest.approx((expected + reverse) / 2)


def test_recalls_reach_points_exactly():
    """Ten positives first: each point is reached with precision 1, also those that binary fractions miss."""
    targets = torch.tensor([1] * 10 + [0] * 10)[:, None]
    assert score("map_11_point", torch.arange(20.0).flip(0)[:, None], targets) == 1.0
    tied = score("map_11_point", torch.zeros(20, 1), targets)  # equal scores come together, in no order
    assert tied == pytest.approx(0.5)
