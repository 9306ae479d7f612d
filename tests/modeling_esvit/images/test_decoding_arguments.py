# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks how a command is told to decode."""

import argparse

import pytest

from modeling_esvit.images.decoding import DEFAULT, DecodingOptions
from modeling_esvit.images.decoding_arguments import (
    add_decoding_arguments,
    add_pixel_arguments,
    read_decoding_arguments,
)


def read(words: str, add=add_decoding_arguments) -> DecodingOptions:
    parser = argparse.ArgumentParser()
    add(parser)
    return read_decoding_arguments(parser.parse_args(words.split()))


def test_arguments_become_options():
    assert read("") == DEFAULT
    words = "--exif_orientation ignore --white_level 4095 --max_pixels 1e9 --allow_paths"
    assert read(words) == DecodingOptions("ignore", 4095.0, 10**9, True)


def test_programs_of_single_images_have_no_rows(capsys):
    words = "--exif_orientation ignore --white_level 4095 --max_pixels 1e9"
    assert read(words, add_pixel_arguments) == DecodingOptions("ignore", 4095.0, 10**9)
    with pytest.raises(SystemExit):
        read("--allow_paths", add_pixel_arguments)
    assert "unrecognized arguments: --allow_paths" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--white_level 0", "--white_level nan", "--max_pixels 1.5", "--max_pixels x"])
def test_impossible_numbers_are_named(words, capsys):
    with pytest.raises(SystemExit):
        read(words)
    assert repr(words.split()[1]) in capsys.readouterr().err
