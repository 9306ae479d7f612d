# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the committed cards of the authors' checkpoints are those that the program writes."""

import pytest

import training.published_cards as published_cards
from tests.helpers.commands import type_arguments
from training.publishing.original_cards import CARDS, render_pages


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return render_pages()


def test_committed_cards_are_up_to_date(written):
    committed = {path.name: path.read_text() for path in CARDS.glob("*.md") if path.name != "template.md"}
    assert committed == written, "run `python training/published_cards.py` and commit what it writes"


@pytest.mark.parametrize("word", ["--help", "--nonsense", "mine"])
def test_the_program_writes_nothing_when_it_is_asked_something(word, monkeypatch):
    monkeypatch.setattr(published_cards, "render_pages", None)  # is not called
    type_arguments(monkeypatch, "training/published_cards.py", word)
    with pytest.raises(SystemExit):
        published_cards.main()
