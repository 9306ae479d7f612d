# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what is drawn of attention: bright parts, the order of heads, the marked point, the entropies of blocks."""

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_esvit import EsViTModel
from modeling_esvit.analysis.attention_maps import block_attentions, mass_mask
from tests.helpers.tiny_runs import write_model
from training.attention import select_head_maps
from training.figures.attention import HeadMaps, draw_entropies, draw_heads, make_title, overlay


WHITE = Image.new("RGB", (32, 32), "white")


@pytest.fixture(scope="module")
def maps(tmp_path_factory) -> HeadMaps:
    """Returns the maps of both heads of a Swin's last block, in which each looks at 16 tokens."""
    model = EsViTModel.from_pretrained(write_model(tmp_path_factory.mktemp("model"), depths=[2, 1])).eval()
    blocks = block_attentions(model, torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    return select_head_maps(3, blocks[-1], "query", (5, 5))


def test_the_smallest_part_with_the_mass_is_bright(maps):
    """It has 60% of the attention; the rest is dark."""
    bright = torch.from_numpy(overlay(WHITE, maps, 0, 0.6)[:, :, 0] > 0.5)
    mask = maps.block.places.to_image(mass_mask(maps.tokens[0]).float()) > 0
    assert torch.equal(bright, mask) and 0.6 <= maps.tokens[0][mask[::8, ::8]].sum() < 0.75


@pytest.mark.parametrize("sort", [False, True])
def test_heads_are_drawn_in_order(maps, sort, tmp_path):
    maps = maps._replace(bits=torch.tensor([1.0, 2.0]), lost=0.25)
    figure = draw_heads(WHITE, [maps, maps], point=(5, 7), mass=None, sort=sort)
    figure.savefig(tmp_path / "picture.png")
    [part, _] = figure.subfigs
    image, *heads = part.axes
    (marked,) = image.lines
    assert np.stack(marked.get_data(), axis=1).tolist() == [[5, 7]]
    titles = ["head 1: 1.0 bits", "head 2: 2.0 bits"]
    assert [cell.get_title() for cell in heads] == (titles[::-1] if sort else titles)
    drawn = [cell.images[0].get_array() for cell in heads]
    expected = [overlay(WHITE, maps, head, None) for head in ((1, 0) if sort else (0, 1))]
    np.testing.assert_array_equal(drawn, expected)
    assert make_title(maps) == "block 3, 4 x 4 tokens, 25% of the attention is outside of the image"


def test_entropies(tmp_path):
    rows = [
        {"block": 1, "uniform": 4.0, "mean": 2.5, "heads": [2.0, 3.0], "spread_over_images": [0.1, 0.2]},
        {"block": 2, "uniform": 6.0, "mean": 5.0, "heads": [5.0], "spread_over_images": [0.5]},
    ]
    figure = draw_entropies(rows, "of org/x")
    figure.savefig(tmp_path / "picture.png")
    (axes,) = figure.axes
    lines = {line.get_label(): np.stack(line.get_data(), axis=1).tolist() for line in axes.lines}
    assert lines["mean of the heads"] == [[1, 2.5], [2, 5.0]] and lines["uniform"] == [[1, 4.0], [2, 6.0]]
    drawn = [bars.lines[0].get_ydata().tolist() for bars in axes.containers[:2]]
    assert drawn == [[2.0, 3.0], [5.0]] and axes.get_ylim() == (0, 6.5)
