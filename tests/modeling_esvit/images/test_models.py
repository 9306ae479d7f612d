# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which folders are models for images, and that their weights tell them apart."""

import copy
import json

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


def change(file, **fields):
    """Writes fields into a JSON file; `...` takes one out."""
    content = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("config.json", {"num_heads": "two"}, "num_heads"),
        ("config.json", {"num_labels": 10**12}, "num_labels in its config.json is 1000000000000, more than 1048576"),
        ("config.json", {"embed_dim": 4096}, "a network of .* numbers or more, and its weights are at most"),
        ("config.json", {"embed_dim": 16}, "size mismatch|mismatched"),
        ("config.json", {"depths": [11585, 1]}, "more than 20000 tensors"),
        (
            "config.json",
            {"depths": [1, 3]},
            "lacks weights that its config.json describes: encoder.layers.1.blocks.1.* more",
        ),
        ("config.json", {"return_dict": False}, "output has no names"),
        ("config.json", {"dtype": "load"}, "cannot be loaded"),
        ("config.json", {"id2label": [1]}, "AttributeError"),
        ("config.json", {"model_type": "x", "auto_map": {"AutoConfig": "own.X", "AutoModel": "own.X"}}, "custom code"),
        ("preprocessor_config.json", {"crop_size": {"height": 10**6, "width": 8}}, "more than 2560 pixels"),
        ("preprocessor_config.json", {"do_center_crop": False}, r"images of several sizes \(\d+x\d+ and \d+x\d+\)"),
        ("preprocessor_config.json", {"image_mean": "gray"}, "cannot be loaded"),
        ("preprocessor_config.json", {"resample": 77}, "cannot be loaded"),
        ("preprocessor_config.json", {"image_processor_type": "own.X"}, "cannot be loaded"),
        ("preprocessor_config.json", {"size": ...}, ""),
    ],
)
def test_a_wrong_field_is_a_typed_error_of_one_line(tmp_path, file, fields, message):
    write_model(tmp_path)
    (tmp_path / "own.py").write_text("raise SystemExit('code was executed')")
    change(tmp_path / file, **fields)
    if not message:
        load_image_model(str(tmp_path))
        return
    with pytest.raises(NoImageModelError, match=message) as caught:
        load_image_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_processor_of_any_size_where_it_may_be(tmp_path):
    write_model(tmp_path)
    change(tmp_path / "preprocessor_config.json", do_center_crop=False)
    load_image_model(str(tmp_path), one_size=False)


def test_the_fingerprint_is_that_of_the_weights(tmp_path):
    model, _ = load_image_model(str(write_model(tmp_path)))
    before = fingerprint(model)
    assert fingerprint(model) == before
    assert fingerprint(copy.deepcopy(model).to(torch.bfloat16)) == before  # as `embed` may load it
    with torch.no_grad():
        model.encoder.norm.bias[0] += 1
    assert fingerprint(model) != before


def test_a_run_is_loaded_without_a_bar_of_its_weights(tmp_path, capfd):
    write_model(tmp_path / "teacher")
    capfd.readouterr()
    assert load_image_model(str(tmp_path))[0].config.image_size == 32
    shown = capfd.readouterr().err
    assert "Loading weights" not in shown and "takes its final model" in shown
