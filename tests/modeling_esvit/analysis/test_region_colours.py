# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks principal components of regions as colours, with scikit-learn as the judge."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.analysis.region_colours import PaletteError, fit_palette, paint
from modeling_esvit.analysis.token_places import regions_of, stage_places


CONFIG = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return EsViTModel(EsViTConfig(**CONFIG)).eval()


def features(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 200, 9, generator=generator) * torch.tensor([9, 7, 5, 3, 1, 1, 1, 1, 1]) + 4


def test_components_are_those_of_scikit_learn():
    rows = features()
    palette, judge = fit_palette(rows), PCA(n_components=3).fit(rows.flatten(0, 1).double().numpy())
    agreement = (palette.axes.numpy() * judge.components_).sum(axis=1)
    np.testing.assert_allclose(np.abs(agreement), 1, atol=1e-9)
    np.testing.assert_allclose(palette.explained.numpy(), judge.explained_variance_ratio_, rtol=1e-6)
    along = judge.transform(rows[0].double().numpy()) * agreement
    colours = palette.colours(rows[0]).double()
    for component in range(3):  # the colour grows with the component, from 1 % to 99 % of the regions
        inside = (colours[:, component] > 0) & (colours[:, component] < 1)
        assert np.corrcoef(along[inside, component], colours[inside, component])[0, 1] > 1 - 1e-9
        assert 0.96 < inside.float().mean() < 1


def test_colours_do_not_flip():
    """The same regions in another order, twice, or with noise: the same axes with the same signs."""
    rows = features().flatten(0, 1)
    axes = fit_palette(rows).axes
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    for other in (rows[order], torch.cat([rows, rows]), rows + 0.01 * torch.randn_like(rows)):
        assert ((fit_palette(other).axes * axes).sum(dim=1) > 0.99).all()
    for seed in range(8):  # whatever signs the eigenvectors come with
        axes = fit_palette(features(seed)).axes
        assert (axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)) > 0).all()


def test_regions_that_are_alike_or_wrong():
    assert (fit_palette(torch.ones(4, 5)).colours(torch.ones(4, 5)) == 0.5).all()
    assert (fit_palette(torch.randn(1, 5)).colours(torch.randn(2, 5)) == 0.5).all()
    for wrong in (torch.randn(4, 2), torch.full((4, 5), torch.nan)):
        with pytest.raises(PaletteError, match="3 or more finite features"):
            fit_palette(wrong)


@pytest.mark.parametrize("size", [(32, 32), (37, 90), (256, 128)], ids=str)
def test_any_size(model, size):
    """Each pixel has the colour of its region; cropped ones are black."""
    with torch.no_grad():
        found, places = regions_of(model, torch.randn(1, 3, *size))
    colours = fit_palette(found).colours(found[0])
    picture = np.asarray(paint(colours, places))
    assert picture.shape == (*size, 3)
    for x, y in ((0, 0), (31, 30), (size[1] // 2, size[0] // 2)):
        expected = (colours[places.token_at(x, y)] * 255).round()
        assert picture[y, x].tolist() == expected.tolist()
    assert (picture[:, size[1] // 4 * 4 :] == 0).all()
    assert np.asarray(paint(colours, places, smooth=True)).shape == (*size, 3)


def test_smooth_colours_have_those_of_the_regions_in_the_middle():
    (*_, places) = stage_places(EsViTConfig(**CONFIG), (32, 32))
    colours = torch.rand(16, 3, generator=torch.Generator().manual_seed(0))
    smooth = np.asarray(paint(colours, places, smooth=True)).astype(float)
    middle = smooth.reshape(4, 8, 4, 8, 3)[:, 3:5, :, 3:5].mean(axis=(1, 3)).reshape(16, 3)
    np.testing.assert_allclose(middle, colours * 255, atol=12)
