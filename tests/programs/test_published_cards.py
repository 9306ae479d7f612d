# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the committed cards of the authors' checkpoints are those that the program writes."""

import pytest

from training.publishing.original_cards import CARDS, render_pages


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return render_pages()


def test_committed_cards_are_up_to_date(written):
    committed = {path.name: path.read_text() for path in CARDS.glob("*.md") if path.name != "template.md"}
    assert committed == written, "run `python training/published_cards.py` and commit what it writes"
