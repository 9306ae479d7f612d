# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which folders are models for images, and that their weights tell them apart."""

import pytest
import torch
from transformers import BertConfig, BertModel

from modeling_esvit.images.models import NoImageModelError, fingerprint, load_image_model
from tests.helpers.tiny_runs import write_model


def test_a_model_and_its_processor(tmp_path):
    model, processor = load_image_model(str(write_model(tmp_path)), {"attn_implementation": "eager"})
    assert model.config._attn_implementation == "eager" and processor.crop_size == {"height": 32, "width": 32}


def test_what_is_no_model_for_images(tmp_path):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=8, **sizes)).save_pretrained(tmp_path / "text")
    write_model(tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"damaged")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "no_such"}')
    for name, message in (
        ("text", "is a BertModel, which takes text and no images"),
        ("damaged", "The weights of .*damaged are damaged"),
        ("empty", "empty cannot be loaded as a model for images: .*no_such"),
        ("nowhere", "there is no folder '.*nowhere', and as a name of a model on the Hub"),
    ):
        with pytest.raises(NoImageModelError, match=message):
            load_image_model(str(tmp_path / name))


def test_the_fingerprint_is_that_of_the_weights(tmp_path):
    model, _ = load_image_model(str(write_model(tmp_path)))
    before = fingerprint(model)
    assert fingerprint(model) == before
    with torch.no_grad():
        model.encoder.norm.bias[0] += 1
    assert fingerprint(model) != before


def test_a_run_is_loaded_without_a_bar_of_its_weights(tmp_path, capfd):
    write_model(tmp_path / "teacher")
    capfd.readouterr()
    assert load_image_model(str(tmp_path))[0].config.image_size == 32
    shown = capfd.readouterr().err
    assert "Loading weights" not in shown and "takes its final model" in shown
