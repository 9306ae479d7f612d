# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that bars of weights and the report of missing ones are hidden, and no others."""

from io import StringIO
from logging import WARNING, StreamHandler

from huggingface_hub.utils import are_progress_bars_disabled
from transformers import AutoModel, AutoModelForImageClassification
from transformers.utils import logging

from modeling_esvit.storage.weight_bars import hide_load_report, hide_weight_bars
from tests.helpers.tiny_runs import write_model


def test_bars_of_weights_alone(tmp_path, capfd):
    logging.enable_progress_bar()  # whatever an earlier test has left
    with hide_weight_bars():
        write_model(tmp_path)
        AutoModel.from_pretrained(tmp_path)
        assert not are_progress_bars_disabled()  # of downloads
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled()
    AutoModel.from_pretrained(tmp_path)
    assert "Loading weights" in capfd.readouterr().err  # else this test would see none


def test_the_report_of_missing_weights_alone(tmp_path, monkeypatch):
    logger, said = logging.get_logger("transformers.modeling_utils"), StringIO()
    monkeypatch.setattr(logger, "level", WARNING)  # whatever an earlier test has left
    monkeypatch.setattr(logger, "handlers", [StreamHandler(said)])
    write_model(tmp_path)
    with hide_load_report():
        AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=2)
    assert "MISSING" not in said.getvalue()
    AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=2)
    assert "MISSING" in said.getvalue()
