# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks what the programs that draw an image share: sizes, pictures and maps."""

import argparse
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from modeling_esvit.images.decoding import DecodingOptions
from training.features.frozen_models import FrozenModelError
from training.features.single_image import check_picture, find_built_size, load_vision_model, normalise, open_image


@pytest.mark.parametrize("size, side", [(96, 96), ([64, 48], 64), (None, 224)])
def test_built_size_is_the_longer_side(size, side):
    assert find_built_size(SimpleNamespace(image_size=size)) == side


@pytest.mark.parametrize(
    "name, message",
    [("x.txt", "name a picture, with one of the suffixes"), ("d.png", "is a folder"), ("f/x.png", "is no folder that")],
)
def test_pictures_that_cannot_be_written_are_refused(tmp_path, capsys, name, message):
    (tmp_path / "d.png").mkdir()
    (tmp_path / "f").write_text("a file")
    assert check_picture(argparse.ArgumentParser(), tmp_path / "new" / "x.PNG").name == "x.PNG"
    with pytest.raises(SystemExit):
        check_picture(argparse.ArgumentParser(), Path(tmp_path, name))
    assert message in capsys.readouterr().err


def test_an_image_that_is_read_is_not_replaced(tmp_path, monkeypatch, capsys):
    (tmp_path / "cat.png").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        check_picture(argparse.ArgumentParser(), tmp_path / "cat.png", ["dog.png", "cat.png"])
    assert "cat.png is an image that is read, and would be replaced; name another file" in capsys.readouterr().err


def test_images_are_decoded_as_the_options_say(tmp_path):
    path, exif = str(tmp_path / "turned.jpg"), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(path, exif=exif)
    assert open_image(path).size == (4, 8) and open_image(path, DecodingOptions("ignore")).size == (8, 4)


def test_maps_have_a_sum_of_one():
    maps = torch.stack([torch.ones(2, 3), torch.zeros(2, 3)])
    torch.testing.assert_close(normalise(maps).sum(dim=(1, 2)), torch.tensor([1.0, 0.0]))


def test_models_of_timm_are_refused():
    with pytest.raises(FrozenModelError, match="timm:x: models of timm give no attention weights"):
        load_vision_model(argparse.Namespace(model="timm:x"))
