# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the pictures of a run show what they are made of."""

import itertools

import numpy as np
import torch

from training.monitoring.pictures import BACKGROUND, GAP, TITLE, draw_views
from training.views.pixels import IMAGENET_MEAN, IMAGENET_STD


def test_views_are_shown_image_by_image():
    """Gives each view a grey level of its own: 10 * image + crop."""
    levels = [torch.tensor([[10 * image + crop for image in range(3)] for crop in crops]) for crops in ((0, 1), (2,))]
    groups = []
    for level, size in zip(levels, (8, 4), strict=True):
        view = level.flatten()[:, None, None, None].expand(-1, 3, size, size) / 255
        groups.append((view - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1))
    picture = draw_views(groups, batch=3, images=2)
    shown = np.asarray(picture)
    assert shown.shape[0] == TITLE + 2 * (
        2 * (64 + GAP) + GAP
    )  # two rows, and in each two small crops above one another
    lefts = (0, 128 + GAP, 2 * (128 + GAP))
    for image, crop in itertools.product(range(2), range(3)):
        top, size = TITLE + image * (2 * (64 + GAP) + GAP), (128, 128, 64)[crop]
        assert (shown[top : top + size, lefts[crop] : lefts[crop] + size] == 10 * image + crop).all()
        assert (shown[top + size, lefts[crop]] == BACKGROUND).all()
    assert len(np.unique(shown[:TITLE])) > 10  # the titles
