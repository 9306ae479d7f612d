# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Writes the model cards of the authors' checkpoints from the table `model_cards/published.yaml`.

    python training/published_cards.py

It writes `model_cards/NAME.md` for each row, and the overview `model_cards/README.md`. Whoever holds a checkpoint
converts it and publishes it with its card: `python training/publish.py FOLDER --repo_id org/name --card
model_cards/NAME.md`. All accuracies on these cards are the authors', and the cards say so.
"""

import modeling_esvit.starting  # noqa: F401  (Ctrl-C ends in a line from here on)

from modeling_esvit.programs.parser import ProgramParser
from training.options.command import run_command
from training.publishing.original_cards import CARDS, render_pages


def main() -> None:
    ProgramParser(__doc__).parse_args()
    pages = render_pages()
    for name, text in pages.items():
        (CARDS / name).write_text(text, encoding="utf-8")
    print(f"Wrote {len(pages)} pages to {CARDS}.")


if __name__ == "__main__":
    run_command(main)
