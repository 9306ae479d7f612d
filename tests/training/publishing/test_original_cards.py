# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the cards of the authors' checkpoints say what the table says and whose numbers they are."""

import pytest
import torch
from huggingface_hub import ModelCard

from modeling_esvit import EsViTModel
from modeling_esvit.conversion.native_swin import find_native_obstacles
from tests.hub.uploads import card_problems
from training.learning.networks import build_config
from training.options.pretrain_options import parse_options
from training.publishing.card_template import check_card
from training.publishing.original_cards import AUTHORS, Published, read_table, render_pages


ROWS = read_table()
# Linear and k-NN accuracy as the authors' README has them, row by row.
AUTHORS_TABLE = {
    "esvit-resnet50": [(75.0, 69.1), (75.7, 71.3)],
    "esvit-swin-tiny-w7": [(77.0, 74.2), (78.0, 75.7)],
    "esvit-swin-small-w7": [(79.2, 76.9), (79.5, 77.7)],
    "esvit-swin-base-w7": [(79.6, 77.7), (80.4, 78.9)],
    "esvit-vil-tiny": [(77.3, 73.9), (77.5, 74.5)],
    "esvit-cvt-tiny": [(77.6, 74.8), (78.5, 76.7)],
}
REGION_ONLY = {
    "esvit-swin-tiny-w14": (78.7, 77.0),
    "esvit-swin-small-w14": (80.8, 79.1),
    "esvit-swin-base-w14": (81.3, 79.3),
}
VIEW_ONLY = {
    "batch1024": (77.1, 73.7),
    "webvision": (75.4, 69.4),
    "openimages": (69.6, 60.3),
    "imagenet22k": (73.5, 66.1),
}


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return render_pages()


def test_every_published_checkpoint_has_its_numbers():
    expected = {
        **{f"{name}-view": values[0] for name, values in AUTHORS_TABLE.items()},
        **{f"{name}-view-region": values[1] for name, values in AUTHORS_TABLE.items()},
        **{f"{name}-view-region": values for name, values in REGION_ONLY.items()},
        **{f"esvit-swin-tiny-w7-view-{name}": values for name, values in VIEW_ONLY.items()},
    }
    assert {row.name: (row.linear, row.knn) for row in ROWS} == expected and len(ROWS) == 19
    assert all(row.task == ("view+region" if row.name.endswith("region") else "view") for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_card_is_valid_and_says_whose_numbers_it_has(row: Published, written):
    text = written[f"{row.name}.md"]
    check_card(text)
    assert card_problems(text) == ([], [])
    card = ModelCard(text)
    assert (card.data.license, card.data.pipeline_tag) == ("mit", "image-feature-extraction")
    assert card.data.library_name == ("transformers" if row.architecture else None)
    assert card.data.datasets == (["ILSVRC/imagenet-1k"] if row.data == "ImageNet-1K" else None)
    results = {result.metric_name: result for result in card.data.eval_results}
    assert {name: result.metric_value for name, result in results.items()} == {
        "linear top-1 (%)": row.linear,
        "k-NN top-1 (%)": row.knn,
    }
    assert all(result.source_name == AUTHORS and not result.verified for result in results.values())
    assert "**These are the authors' own numbers**" in text and "{{" not in text and "None" not in text
    conversion = f"python -m modeling_esvit.convert_original checkpoint_best.pth {row.name}"
    assert (conversion in text) == (row.architecture is not None) and (
        f"{conversion} --native" in text
    ) == row.is_native
    assert f'AutoModel.from_pretrained("org/{row.name}"' in text or row.architecture is None


@pytest.mark.parametrize("row", [row for row in ROWS if row.architecture], ids=lambda row: row.name)
def test_architecture_is_the_one_that_was_published(row: Published):
    """Compares its size, and whether `--native` is offered exactly if that format can carry it."""
    config = row.config
    assert config is not None
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in EsViTModel(config).parameters())
    assert abs(parameters / 1e6 - float(row.parameters.removesuffix("M"))) < 1
    if config.architecture == "swin":
        assert row.is_native == (not find_native_obstacles(config))


@pytest.mark.parametrize("row", [row for row in ROWS if row.recipes], ids=lambda row: row.name)
def test_recipes_are_of_that_architecture_and_task(row: Published):
    last = parse_options(["--recipe", row.recipes[-1]])
    assert (last.architecture, last.task) == (row.architecture, row.task)
    assert row.window in (None, build_config(last).window_size)
