# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the curves of a run."""

import json
import math

from PIL import Image

from training.figures.curves import draw_curves, make_panels


def test_curves(tmp_path):
    """Draws one more panel when there is more to show; a step without a finite loss is a gap."""
    log, picture = tmp_path / "log.jsonl", tmp_path / "curves.png"
    records = [{"step": step, "loss": 5 / step, "teacher_entropy": 2.0, "kl": 1.0} for step in range(1, 30)]
    records[3]["loss"] = None
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    draw_curves(log, picture, num_prototypes=64, min_rank=2.0)
    with Image.open(picture) as image:
        width = image.width
    with log.open("a") as file:
        file.write(json.dumps({"step": 29, "knn_k10_top1": 0.5}) + "\ndamaged\n")
    draw_curves(log, picture, num_prototypes=64, min_rank=2.0)
    with Image.open(picture) as image:
        assert image.width * 3 == width * 4 and math.isclose(image.height, 360, abs_tol=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "log.jsonl"]


def test_region_matches_are_drawn_beside_chance():
    matches = {"accuracy": 0.2, "within_one": 0.4, "chance": 0.02, "distinct": 0.8}
    records = [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 1.0, **{f"region_match_{k}": v for k, v in matches.items()}},
    ]
    first, *others = make_panels(records, uniform=5.0, min_rank=2.0)
    assert first.marks == {"chance to be right": 0.02} and set(first.labels) < {
        f"region_match_{name}" for name in matches
    }
    assert len(first.labels) == 3 and len(others) == 3
    assert all(panel.healthy for panel in (first, *others))
    without_chance = [{"step": 1, "loss": 1.0, "region_match_accuracy": 0.2}]  # its name has a flipped bit
    assert len(make_panels(without_chance, uniform=5.0, min_rank=2.0)) == 3


def test_further_terms_of_the_loss_have_a_scale_of_their_own():
    panels = make_panels([{"step": 1, "loss": 5.0, "view_loss": 5.0, "koleo_loss": 0.3}], uniform=5.0, min_rank=2.0)
    [terms] = [panel for panel in panels if panel.title == "further terms of the loss"]
    [losses] = [panel for panel in panels if panel.title == "losses"]
    assert list(terms.labels) == ["koleo_loss"] and list(losses.labels) == ["view_loss", "loss"]
