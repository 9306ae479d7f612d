# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the pictures of a run show what they are made of."""

import itertools
import json
import math

import numpy as np
import torch
from PIL import Image

from training.monitoring.pictures import BACKGROUND, GAP, TITLE, draw_curves, draw_views
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


def test_curves(tmp_path):
    """Draws one more panel when there is more to show; a step without a finite loss is a gap."""
    log, picture = tmp_path / "log.jsonl", tmp_path / "curves.png"
    records = [{"step": step, "loss": 5 / step, "teacher_entropy": 2.0, "kl": 1.0} for step in range(1, 30)]
    records[3]["loss"] = None
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    draw_curves(log, picture, num_prototypes=64)
    with Image.open(picture) as image:
        width = image.width
    with log.open("a") as file:
        file.write(json.dumps({"step": 29, "knn_k10_top1": 0.5}) + "\n")
    draw_curves(log, picture, num_prototypes=64)
    with Image.open(picture) as image:
        assert image.width * 3 == width * 4 and math.isclose(image.height, 300, abs_tol=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "log.jsonl"]
