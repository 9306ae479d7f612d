# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The correspondence measure: exact where the answer is known, near chance where there is none."""

import numpy as np
import pytest
import torch
from PIL import Image

import correspondences
from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.region_matching import match_regions


GRID = (32, 48)


@pytest.fixture(scope="module")
def truth():
    return correspondences.true_matches(correspondences.stereo_pair()[2], GRID)


def test_features_that_know_the_truth_score_one(truth):
    right = torch.eye(truth.numel())
    left = right[truth.clamp(min=0)]
    scores = correspondences.score_matches(match_regions(left[None], right[None])[0], truth, GRID)
    assert scores["share"] == scores["exact"] == 1.0
    assert scores["regions"] == (truth >= 0).sum() > 1000


def test_neighbouring_regions_count_and_those_two_off_do_not(truth):
    rows, columns = truth // GRID[1], truth % GRID[1]
    inside = (truth >= 0) & (rows < GRID[0] - 2)
    truth = truth.where(inside, -1)
    one_off, two_off = truth + GRID[1] + (columns > 0).int(), truth + 2 * GRID[1]
    scores = correspondences.score_matches(one_off, truth, GRID)
    assert scores["exact"] == 0.0 and scores["share"] > 0.98  # the last column's neighbour is on the next row
    assert correspondences.score_matches(two_off, truth, GRID)["share"] == 0.0


def test_random_features_score_chance():
    grid = (8, 12)
    truth = correspondences.true_matches(correspondences.stereo_pair()[2], grid)
    guesses = torch.randint(96, (300, 96), generator=torch.Generator().manual_seed(0))
    scores = [correspondences.score_matches(guess, truth, grid) for guess in guesses]
    share, exact = (np.mean([s[name] for s in scores]) for name in ("share", "exact"))
    assert share == pytest.approx(scores[0]["chance"], rel=0.05)
    assert exact == pytest.approx(1 / 96, rel=0.1) and scores[0]["chance_exact"] == pytest.approx(1 / 96)
    assert scores[0]["chance"] == pytest.approx(9 / 96, rel=0.2)  # nine regions are right, six or four at the border


def test_truth_pairs_pixels_that_look_alike():
    """The sign and the scale of the disparity: a pixel and its true partner have the same colour, more or less."""
    left, right, disparity = correspondences.stereo_pair()
    grid = disparity.shape  # a region a pixel
    truth = correspondences.true_matches(disparity, grid)
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
    truth = correspondences.true_matches(disparity, (4, 8)).view(4, 8)
    columns = (truth - torch.arange(0, 32, 8)[:, None]).where(truth >= 0, -1)
    for row, hidden in enumerate(([], [0], [0], [1])):
        expected = [0, 1, -1, -1, 4, 2, 3, 7]
        for x in hidden:
            expected[x] = -1
        assert columns[row].tolist() == expected


def test_any_model_gives_shares_and_a_picture(tmp_path):
    torch.manual_seed(0)
    sizes = {"image_size": 64, "embed_dim": 8, "depths": [1, 1, 1], "num_heads": [1, 2, 2], "window_size": 4}
    model = EsViTModel(EsViTConfig(**sizes)).eval()
    found = correspondences.find_correspondences(model, size=(128, 192))
    assert found.grid == (8, 12)
    scores = correspondences.correspondence_share(model, size=(128, 192))
    assert scores["chance"] < scores["exact"] <= scores["share"] <= 1.0

    lines = found.most_similar(10, apart=2)
    distance = correspondences.cell_distance(lines[:, None], lines[None], found.grid[1])
    assert (distance + 2 * torch.eye(len(lines)) >= 2).all() and (found.truth[lines] >= 0).all()
    assert (found.similarity[lines].diff() <= 0).all()

    output = tmp_path / "new" / "picture.png"
    correspondences.save_figure(correspondences.draw(found, "title", count=10), output)
    assert Image.open(output).size[0] > 1000 and list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("tokens", [97, 95, 96 * 3])
def test_tokens_that_are_no_grid(tokens):
    assert correspondences.grid_of(96, (128, 192)) == (8, 12)
    with pytest.raises(correspondences.RegionGridError, match=f"{tokens} tokens"):
        correspondences.grid_of(tokens, (128, 192))
