# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The features of a collection are computed once, and what they lack is said each time."""

import shutil

import numpy as np
import pytest

from modeling_esvit.embed.command import main
from modeling_esvit.embed.embedder import Embedder
from modeling_esvit.embed.files import FORMATS, OutputError
from modeling_esvit.embed.inputs import find_images
from modeling_esvit.embed.reuse import embed_or_reuse


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_of_the_command_is_reused(suffix, folder, images, tmp_path, monkeypatch, capsys):
    """Also from another folder, and for a model in another type; other images and models are refused."""
    data = shutil.copytree(images, tmp_path / "data")
    (data / "broken.png").write_bytes(b"no image")
    output = tmp_path / f"f{suffix}"
    main([folder, str(data), "--output", str(output), "--dtype", "bfloat16"])
    reason = "not an image in a format that is read here"
    listed = (tmp_path / f"f{suffix}.unreadable.txt").read_text()
    assert listed == f"{data}/broken.png\t{reason}\n"  # the name is there once
    embedder = Embedder.from_pretrained(folder, dtype="float32")
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "features", None)  # nothing is computed
        found = embed_or_reuse(embedder, find_images(["data"]), output)
    assert found.names[0] == "data/00.png" and len(found.names) == 11
    assert capsys.readouterr().out.splitlines() == [
        f"reuses the features of 11 of 12 images: {output}",
        "not read: 1 .md",
    ]
    with pytest.raises(OutputError, match="features of other images: broken.png is missing"):
        embed_or_reuse(embedder, find_images([str(images)]), output)
    embedder.model.encoder.norm.bias.data += 1
    with pytest.raises(OutputError, match="features of another model"):
        embed_or_reuse(embedder, find_images(["data"]), output)


def test_what_features_lack_is_said_with_and_without_a_file(folder, images, tmp_path, capsys):
    data = shutil.copytree(images, tmp_path / "data")
    (data / "broken.png").write_bytes(b"no image")
    embedder = Embedder.from_pretrained(folder)
    alone = embed_or_reuse(embedder, find_images([str(data)]))
    lost = [f"cannot be read: {data}/broken.png: not an image in a format that is read here"]
    assert capsys.readouterr().out.splitlines() == [*lost, "1 could not be read", "not read: 1 .md"]
    kept = embed_or_reuse(embedder, find_images([str(data)]), tmp_path / "f.npz")
    assert capsys.readouterr().out.splitlines() == [
        *(f"11 of 12 images: {tmp_path}/f.npz", *lost),
        *("1 could not be read, all listed in f.npz.unreadable.txt", "not read: 1 .md"),
    ]
    np.testing.assert_allclose(alone.view, kept.view, atol=1e-6)
