# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs `attention_entropy.py` on folders of images."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

import training.attention_entropy as attention_entropy
from modeling_esvit import EsViTConfig, EsViTModel
from tests.helpers.commands import run_program, torchrun


def test_entropy_of_a_folder(attention_model, few_images, tmp_path, capsys):
    output = tmp_path / "entropy.json"
    (tmp_path / "bad.png").write_bytes(b"no image")
    attention_entropy.main(
        [attention_model, str(few_images), str(tmp_path / "bad.png"), "--batch_size", "2", "--output", str(output)]
    )
    found = json.loads(output.read_text())
    assert found["images"] == 5 and "bad.png" in found["unreadable"][0]
    model, processor = (
        AutoModel.from_pretrained(attention_model).eval(),
        AutoImageProcessor.from_pretrained(attention_model),
    )
    pixels = processor([Image.open(path) for path in sorted(few_images.iterdir())], return_tensors="pt")["pixel_values"]
    for row, weights in zip(found["blocks"], model(pixels, output_attentions=True).attentions, strict=True):
        heads = -(weights * weights.clamp(min=1e-30).log2()).sum(dim=-1).mean(dim=(0, 2))
        torch.testing.assert_close(torch.tensor(row["heads"]), heads, rtol=0, atol=1e-4)
        assert row["uniform"] == 4 and row["mean"] == pytest.approx(heads.mean().item(), abs=1e-4)
    assert f"| 1 | 8 x 8 | {found['blocks'][0]['mean']:.2f} |" in capsys.readouterr().out
    assert "1 could not be read" in output.with_suffix(".md").read_text()
    assert Image.open(output.with_suffix(".png")).height == 400


def seen_queries(config, size: int) -> list[np.ndarray]:
    """Of each block of a Swin which query of which window is a token, `[windows, window**2]`, by the paper: the map is
    padded to whole windows, and moved up and left by half a window in every second block.
    """
    found = []
    for stage, depth in enumerate(config.depths):
        rows, window = -(-size // (config.patch_size * 2**stage)), config.window_size
        tokens = np.pad(np.ones((rows, rows), bool), (0, -rows % window))
        for block in range(depth):
            moved = np.roll(tokens, (-(window // 2) * (block % 2),) * 2, axis=(0, 1))
            tiles = moved.reshape(len(moved) // window, window, -1, window).swapaxes(1, 2)
            found.append(tiles.reshape(-1, window**2))
    return found


@pytest.mark.parametrize("name", ["swin", "vit"])
def test_entropy_is_that_of_the_definition(few_images, tmp_path, name):
    """In numpy, from the attentions that the model returns. The Swin's maps of 11 x 11 and 6 x 6 tokens are padded."""
    torch.manual_seed(1)
    sizes = {"image_size": 44, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
    vit = {"image_size": 48, "embed_dim": 8, "depths": [2], "num_heads": [2]}
    config = EsViTConfig(**sizes) if name == "swin" else EsViTConfig.from_architecture("deit-tiny", **vit)
    model = EsViTModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far from uniform
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(tmp_path / "model")
    attention_entropy.main([str(tmp_path / "model"), str(few_images), "--output", str(tmp_path / "entropy.json")])
    found = json.loads((tmp_path / "entropy.json").read_text())["blocks"]

    processor = AutoImageProcessor.from_pretrained(tmp_path / "model")
    pixels = processor([Image.open(path) for path in sorted(few_images.iterdir())], return_tensors="pt")["pixel_values"]
    attentions = [weights.detach().double().numpy() for weights in model(pixels, output_attentions=True).attentions]
    seen = seen_queries(config, 44) if name == "swin" else [np.ones((1, 10), bool)] * 2
    for row, weights, queries in zip(found, attentions, seen, strict=True):
        logarithms = np.log2(weights, where=weights > 0, out=np.zeros_like(weights))
        bits = -(weights * logarithms).sum(axis=-1).reshape(5, len(queries), -1, queries.shape[1])
        heads = bits.transpose(2, 0, 1, 3)[:, :, queries].mean(axis=(1, 2))
        np.testing.assert_allclose(row["heads"], heads, rtol=0, atol=1e-5)
        assert row["uniform"] == pytest.approx(math.log2(queries.shape[1])) and (heads < row["uniform"] - 0.1).all()


def test_no_image_can_be_read(attention_model, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(attention_entropy.EmptySourceError, match="0 of 1 image can be read: .*bad.png"):
        attention_entropy.main([attention_model, str(tmp_path / "bad.png"), "--output", str(tmp_path / "entropy.json")])
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(SystemExit):  # not after the last image
        attention_entropy.main([attention_model, str(tmp_path / "bad.png"), "--output", str(tmp_path / "folder.json")])


@pytest.mark.slow
def test_two_processes_are_equal(attention_model, few_images, tmp_path):
    found = []
    for name, launcher in (("one", ["python"]), ("two", torchrun(2))):
        output = tmp_path / f"{name}.json"
        script = [*launcher, "training/attention_entropy.py"]
        run_program([*script, attention_model, few_images, "--device", "cpu", "--output", output])
        found.append(json.loads(output.read_text()))
    assert found[0]["images"] == found[1]["images"] == 5
    for one, two in zip(found[0]["blocks"], found[1]["blocks"], strict=True):
        assert one["heads"] == pytest.approx(two["heads"], abs=1e-6)
