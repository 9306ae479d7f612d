# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that public names tell nothing of the machine."""

import pytest

from training.evaluation.public_names import make_public_command, make_public_name


@pytest.mark.parametrize(
    ("data", "public"),
    [
        ("/home/ada/photographs", "photographs"),
        ("photographs:test", "photographs:test"),
        ("timm/imagenet-1k-wds", "timm/imagenet-1k-wds"),
        ("ILSVRC/imagenet-1k:validation", "ILSVRC/imagenet-1k:validation"),
        ("https://ada:word@example.org:8443/shards/0.tar?key=word", "https://example.org/shards/0.tar"),
    ],
)
def test_public_names(data, public):
    assert make_public_name(data) == public


def test_public_command(tmp_path):
    """Names neither folders nor what only this machine has; MODEL stands for the model."""
    (tmp_path / "birds").mkdir()
    data = f"--train={tmp_path}/birds:train --test {tmp_path}/birds:test --shots 1% 5"
    words = f"/a/training/linear_features.py runs/mine {data} --features /a/b --output=/a/c.json --seeds 0"
    shown = "python training/linear_features.py MODEL --train=birds:train --test birds:test --shots 1% 5 --seeds 0"
    assert make_public_command(words.split(), "runs/mine") == shown
