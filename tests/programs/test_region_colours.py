# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs `region_colours.py`."""

import pytest
import torch
from PIL import Image

import training.region_colours as region_colours
from modeling_esvit import EsViTConfig, EsViTModel
from tests.helpers.tiny_runs import write_images
from training.options.command import run_command


CONFIG = {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return EsViTModel(EsViTConfig(**CONFIG)).eval()


def test_the_picture_shows_the_first_images(model, tmp_path, capsys, monkeypatch):
    """A picture of hundreds of images would be longer than a picture can be."""
    monkeypatch.setattr(region_colours, "DRAWN", 1, raising=False)
    model.save_pretrained(tmp_path / "model")
    paths = sorted(str(path) for path in write_images(tmp_path / "images", 3).iterdir())
    output = tmp_path / "colours.png"
    region_colours.main([str(tmp_path / "model"), *paths, "--output", str(output)])
    assert capsys.readouterr().out.splitlines()[-1] == f"{output}: the first 1 of 3 images"
    assert Image.open(output).height == 460


def test_command(model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model")
    images = write_images(tmp_path / "images", 2)
    Image.new("L", (5, 200)).save(images / "gray.png")
    paths = sorted(str(path) for path in images.iterdir())
    output = tmp_path / "new" / "colours.png"
    command = [str(tmp_path / "model"), *paths, "--image_size", "64", "--output", str(output)]
    region_colours.main([*command, "--smooth"])
    assert list(output.parent.iterdir()) == [output] and Image.open(output).width == 825
    assert "of the regions' variance" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="error: .*nothing.png"):
        run_command(lambda: region_colours.main([command[0], "nothing.png"]))
    with pytest.raises(SystemExit, match="error: .*00.png: 48 x 48 pixels are more than the 100"):
        run_command(lambda: region_colours.main([*command, "--max_pixels", "100"]))
    with pytest.raises(SystemExit):
        region_colours.main([*command[:-1], "colours.xyz"])
    assert "name a picture" in capsys.readouterr().err
