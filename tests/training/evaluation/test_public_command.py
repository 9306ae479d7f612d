# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that public commands tell nothing of the machine."""

from training.evaluation.public_command import make_public_command


def test_public_command(tmp_path, monkeypatch):
    """Names neither folders nor what only this machine has; MODEL stands for the model."""
    monkeypatch.chdir(tmp_path)
    for name in ("birds", "patients/ada", "20"):
        (tmp_path / name).mkdir(parents=True)
    data = f"--train={tmp_path}/birds:train --test birds:ada --extra patients/ada --label_column bird --k 20 1% 1e-3"
    words = f"/a/training/linear_features.py runs/mine {data} --features /a/b --output=/a/c.json --seeds 0"
    shown = "--train=FOLDER:train --test FOLDER --extra FOLDER --label_column bird --k 20 1% 1e-3 --seeds 0"
    assert make_public_command(words.split(), "runs/mine") == f"python training/linear_features.py MODEL {shown}"


def test_names_on_the_hub_stay():
    words = "x/transfer.py m --data a=org/birds:test --against timm:resnet50 --table https://host/t.yaml --test *.tar"
    shown = "--data a=org/birds:test --against timm:resnet50 --table URL --test '*.tar'"
    assert make_public_command(words.split(), "m") == f"python x/transfer.py MODEL {shown}"
