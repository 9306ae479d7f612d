# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the map of features and the sheet of neighbours: points, names, the right images, the colour of frames."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from PIL import Image

from tests.helpers.tiny_runs import write_images, write_model
from training.data.sources import open_source
from training.features.bank import make_bank
from training.features.extraction import LabelledImages
from training.features.frozen_models import load_frozen
from training.figures.feature_maps import NAMED_CLASSES, draw_map, draw_neighbours, read_thumbnail


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """13 images each of two classes; the first of all cannot be read."""
    path = write_images(tmp_path_factory.mktemp("images") / "data", classes="ab")
    (path / "a" / "00.png").write_bytes(b"no image")
    return path


@pytest.fixture(scope="module")
def bank(images, tmp_path_factory):
    model, source = load_frozen(str(write_model(tmp_path_factory.mktemp("model")))), open_source(str(images))
    return make_bank(model, "data", source, tmp_path_factory.mktemp("bank")), LabelledImages(source, model.transform)


def read_pixels(images, name: str) -> np.ndarray:
    return np.asarray(Image.open(images / name).convert("RGB"))


def test_thumbnails_are_those_of_the_rows(bank, images):
    for row in (0, 20):
        name = bank[0].names[row]
        assert np.array_equal(np.asarray(read_thumbnail(bank[1], name, row)), read_pixels(images, name))


def test_a_sheet_shows_the_query_and_its_neighbours(bank, images, tmp_path):
    """Row 2 is of class a, row 20 of class b."""
    queries, similarity, rows = (
        torch.tensor([2, 20]),
        torch.tensor([[0.9, 0.25], [0.8, 0.5]]),
        torch.tensor([[3, 20], [2, 21]]),
    )
    figure = draw_neighbours(*bank, queries, similarity, rows)
    figure.savefig(tmp_path / "picture.png")
    assert [cell.get_title() for cell in figure.axes] == ["a", "0.90", "0.25", "b", "0.80", "0.50"]
    for cell, row in zip(figure.axes, [2, 3, 20, 20, 2, 21], strict=True):
        assert np.array_equal(cell.images[0].get_array(), read_pixels(images, bank[0].names[row]))
    colours = [cell.spines["left"].get_edgecolor() for cell in figure.axes]
    same, other, query = to_rgba("tab:green"), to_rgba("tab:red"), to_rgba("black")
    assert colours == [query, same, other, query, other, same]


@pytest.mark.parametrize("classes, names", [(3, ["x", "y", "z"]), (NAMED_CLASSES + 1, None)])
def test_a_map_has_all_points_by_class(classes, names, tmp_path):
    labels = torch.arange(2 * classes) % classes
    points = np.arange(4 * classes, dtype=float).reshape(-1, 2)
    figure = draw_map(points, labels, SimpleNamespace(class_names=names), "t-SNE of org/x")
    figure.savefig(tmp_path / "picture.png")
    (axes,) = figure.axes
    drawn = [np.asarray(each.get_offsets()).tolist() for each in axes.collections]
    assert drawn == [points[label::classes].tolist() for label in range(classes)]
    legends = [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]
    assert legends == ([names] if names else [])
