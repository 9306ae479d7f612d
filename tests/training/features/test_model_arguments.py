# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the arguments of a program name the model that is loaded."""

import argparse

import pytest

from modeling_esvit.embed.compiling import add_compile_argument
from modeling_esvit.images.precision import add_dtype_argument
from tests.helpers.tiny_runs import write_model
from training.features.frozen_models import FrozenModelError
from training.features.model_arguments import add_model_arguments, count_named_blocks, load_named_model


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_model_arguments(parser)
    add_dtype_argument(parser)
    add_compile_argument(parser)
    return parser.parse_args(words)


def test_the_named_model_is_loaded(tmp_path):
    arguments = parse(str(write_model(tmp_path)), "--device", "cpu")
    assert (arguments.revision, arguments.trust_remote_code) == (None, False)
    assert load_named_model(arguments, n_last_blocks=2).settings["n_last_blocks"] == 2
    with pytest.raises(FrozenModelError, match="n_last_blocks is 9; the model has 2 blocks"):
        load_named_model(arguments, n_last_blocks=9)


def test_blocks_are_counted_without_the_weights(tmp_path):
    folder = write_model(tmp_path)
    (folder / "model.safetensors").unlink()
    assert [count_named_blocks(parse(name)) for name in (str(folder), "timm:resnet18")] == [2, 0]
