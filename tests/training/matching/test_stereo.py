# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The stereo pair: its truth is true, models of any kind are measured on it, and the example draws it."""

import numpy as np
import pytest
import torch
from PIL import Image

import examples.correspondences as correspondences
import training.matching.stereo as stereo
from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.analysis.token_places import TokenPlacesError
from training.features.frozen_models import FrozenModelError
from training.matching.measures import count_cells_between, find_regions_at


def small_model() -> EsViTModel:
    torch.manual_seed(0)
    sizes = {"image_size": 64, "embed_dim": 8, "depths": [1, 1, 1], "num_heads": [1, 2, 2], "window_size": 4}
    return EsViTModel(EsViTConfig(**sizes)).eval()


def true_regions(disparity: np.ndarray, grid: tuple[int, int]) -> torch.Tensor:
    """As positions are counted; -1 for what is left out."""
    truth = stereo.compute_true_positions(disparity, grid, disparity.shape)
    return find_regions_at(truth.nan_to_num(0), grid, disparity.shape).where(truth[:, 0].isfinite(), -1)


def test_truth_pairs_pixels_that_look_alike():
    """The sign and the scale of the disparity: a pixel and its true partner have the same colour, more or less."""
    left, right, disparity = stereo.load_stereo_pair()
    grid = disparity.shape  # a region a pixel
    truth = true_regions(disparity, grid)
    known = truth >= 0
    left, right = (torch.from_numpy(np.array(image)).view(-1, 3).float() for image in (left, right))
    difference = (left[known] - right[truth[known]]).abs().mean()
    mirrored = 2 * torch.arange(truth.numel()) - truth  # the same disparity with the other sign, on the same row
    known &= (mirrored // grid[1] == torch.arange(truth.numel()) // grid[1]) & (mirrored < truth.numel())
    assert difference < 10 < 40 < (left[known] - right[mirrored[known]]).abs().mean()


def test_hidden_and_unmeasured_regions_are_left_out():
    disparity = np.zeros((4, 8))
    disparity[:, 5:7] = 3  # in front of columns 2 and 3 of the right view
    disparity[1, 0] = np.inf
    disparity[2, 0] = np.nan
    disparity[3, 1] = 2  # outside the right view
    truth = true_regions(disparity, (4, 8)).view(4, 8)
    columns = (truth - torch.arange(0, 32, 8)[:, None]).where(truth >= 0, -1)
    for row, hidden in enumerate(([], [0], [0], [1])):
        expected = [0, 1, -1, -1, 4, 2, 3, 7]
        for x in hidden:
            expected[x] = -1
        assert columns[row].tolist() == expected


def test_positions_are_in_pixels_of_the_resized_view():
    disparity = np.full((4, 8), 2.0)
    truth = stereo.compute_true_positions(disparity, (4, 8), (40, 160)).view(4, 8, 2)
    assert truth[:, :2].isnan().all()  # left of the right view
    assert truth[0, 2:, 0].tolist() == [10.0, 30.0, 50.0, 70.0, 90.0, 110.0]
    assert truth[:, 5, 1].tolist() == [5.0, 15.0, 25.0, 35.0]


@pytest.mark.parametrize("side", [4, 8, 14, 16, 30, 32, 48, 64])
def test_whole_regions_of_any_size(side):
    height, width = stereo.choose_size(side)
    assert height % side == width % side == 0 and (height // side) * (width // side) <= 64 * 96
    assert (height, width) == (1024, 1536) or side not in (16, 32, 64)
    assert 1.4 < width / height <= 1.5 and height <= 1050


def test_any_model_gives_scores_and_a_picture(tmp_path):
    model = small_model()
    found = stereo.match_stereo(model, size=(128, 192))
    assert found.grid == (8, 12)
    scores = found.score()
    assert scores["chance_within_one"] < scores["exact"] <= scores["within_one"] <= scores["nearest_within_one"] == 1
    assert scores["nearest_error"] < scores["error"] < scores["chance_error"]
    assert scores["chance_exact"] == pytest.approx(1 / 96)
    assert scores["chance_within_one"] == pytest.approx(9 / 96, rel=0.2)  # nine regions are right, fewer at the border

    lines = found.select_regions(10, apart=2)
    distance = count_cells_between(lines[:, None], lines[None], found.grid[1])
    assert (distance + 2 * torch.eye(len(lines)) >= 2).all() and found.truth[lines].isfinite().all()
    assert (found.similarity[lines].diff() <= 0).all()

    model.save_pretrained(tmp_path / "model")
    output = tmp_path / "new" / "picture.png"
    command = [str(tmp_path / "model"), "--output", str(output), "--image_size", "128", "192", "--lines", "10"]
    correspondences.main(command)
    assert Image.open(output).size[0] > 1000 and list(output.parent.iterdir()) == [output]
    with pytest.raises(TokenPlacesError, match="no grid of square regions.* --image_size 128 208"):
        correspondences.main([*command[:4], "128", "200"])


def test_without_scikit_image(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skimage.data", None)
    with pytest.raises(FrozenModelError, match="pip install scikit-image"):
        stereo.load_stereo_pair()
