# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the command that draws attention, as a user types it."""

import numpy as np
import pytest
from PIL import Image

import training.attention as attention
from training.options.command import run_command


@pytest.mark.parametrize(
    "options", ["--query 3 40", "--of received --blocks 1 -1", "--mass 0.6 --sort --image_size 100"]
)
def test_pictures(attention_model, few_images, tmp_path, capsys, options):
    output = tmp_path / "new" / "picture.png"
    attention.main([attention_model, str(few_images / "00.png"), *options.split(), "--output", str(output)])
    assert list(output.parent.iterdir()) == [output] and Image.open(output).width > 400
    last = {"--image_size": "block 3, 12 x 12 tokens"}.get(options.split()[-2], "block 3, 4 x 4 tokens")
    assert last in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "I;16"])
def test_images_of_all_kinds(attention_model, tmp_path, mode):
    path = tmp_path / ("image.tiff" if mode == "CMYK" else "image.png")
    Image.fromarray(np.full((3, 70), 9000, np.uint16)).save(path) if mode == "I;16" else Image.new(mode, (3, 70)).save(
        path
    )
    attention.main([attention_model, str(path), "--output", str(tmp_path / "picture.png")])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["MODEL", "nothing.png"], "No such file"),
        (["MODEL", "IMAGE", "--query", "48", "0"], "--query 48 0 is outside of the image of 48 x 48 pixels"),
        (["MODEL", "IMAGE", "--blocks", "4"], "There is no block 4; the model has blocks 1 to 3"),
        (["MODEL", "IMAGE", "--of", "class"], "0 class or global tokens"),
        (["nowhere/at/all", "IMAGE"], "there is no folder 'nowhere/at/all'"),
        (["timm:resnet18", "IMAGE"], "no attention weights"),
    ],
)
def test_what_users_get_wrong(attention_model, few_images, tmp_path, arguments, message):
    named = {"MODEL": attention_model, "IMAGE": str(few_images / "00.png")}
    command = [named.get(argument, argument) for argument in arguments]
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        run_command(lambda: attention.main([*command, "--output", str(tmp_path / "p.png")]))
    assert not list(tmp_path.iterdir())
