# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the views of a linear probe against torchvision, and how processes share batches."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as T

from tests.helpers.tiny_runs import write_images, write_model
from training.data.sources import open_source
from training.evaluation.probe_data import SCALE, ProbeImages, ProbeView
from training.features.frozen_models import load_frozen
from training.views.draw import draw_box, make_keyed_generator


NUMBER = 13


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("model"), depths=[1, 2]))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images") / "train", NUMBER, classes="abc")


def test_views_are_those_of_torchvision():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    view, flips = ProbeView((32, 24), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)), 0
    for position in range(6):
        generator = make_keyed_generator(0, 0, position)
        top, left, height, width = draw_box(generator, image.size, SCALE)
        crop = T.resized_crop(image, top, left, height, width, [32, 24], T.InterpolationMode.BILINEAR)
        flipped = generator.random() < 0.5
        flips += flipped
        expected = T.normalize(T.to_tensor(T.hflip(crop) if flipped else crop), view.mean, view.std)
        torch.testing.assert_close(view.make(image, make_keyed_generator(0, 0, position)), expected)
    assert 0 < flips < 6


def test_processes_share_the_batches_of_one(model_folder, images):
    model = load_frozen(model_folder)

    def epoch(rank, world):
        probe_images = ProbeImages(open_source(images), model, seed=0, batch_size=6, rank=rank, world=world)
        batches = list(probe_images.load_epoch(1, threads=2))
        assert len(batches) == probe_images.count_steps() == 3
        return batches

    alone, shared = epoch(0, 1), [epoch(rank, 3) for rank in range(3)]
    for step, whole in enumerate(alone):
        parts = [image for batches in shared for image in batches[step]]
        assert [image.name for image in parts] == [image.name for image in whole]
        assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(parts, whole, strict=True))
    assert len({image.name for batch in alone for image in batch}) == NUMBER
    assert [len(batches[2]) for batches in shared] == [1, 0, 0]  # the 13th image
