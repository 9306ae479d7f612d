# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Tries the commands on what strangers' folders hold: any names, links, phone photographs, thin lines, archives."""

import os
import zipfile

import numpy as np
import pytest
from datasets import Dataset
from datasets import Image as ImageColumn
from PIL import Image

import training.knn as knn
from modeling_esvit.embed.command import main as embed
from modeling_esvit.embed.files import FORMATS, load_features
from tests.helpers.commands import type_arguments
from tests.helpers.tiny_runs import tiny, write_images, write_model
from training.options.command import run_command
from training.pretrain import main as pretrain


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("model")))


def embed_all(model, *arguments, output):
    embed([model, *map(str, arguments), "--output", str(output)])
    return load_features(output)


@pytest.fixture
def folder(tmp_path):
    """Returns a folder with a linked class, a name that is not UTF-8, hidden copies and files of other types."""
    folder = write_images(tmp_path / "folder", 10)
    write_images(tmp_path / "elsewhere", 3)
    (folder / "dogs").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(folder)
    os.rename(folder / "00.png", os.path.join(os.fsencode(folder), b"caf\xe9.png"))
    write_images(folder / ".ipynb_checkpoints", 2)
    for name in ("._01.png", "1.heic", "2.HEIC", "notes.txt"):
        (folder / name).write_bytes(b"")
    return folder


KINDS = "2 .heic: pip install pillow-heif"


@pytest.mark.parametrize("suffix", FORMATS)
def test_embed_and_a_stranger_s_folder(suffix, model, folder, tmp_path, capsys):
    (folder / "broken.png").write_bytes(b"")
    os.rename(folder / "broken.png", os.path.join(os.fsencode(folder), b"br\xf6ken\n.png"))
    names = embed_all(model, folder, output=tmp_path / f"f{suffix}").names
    assert len(names) == 13 and f"{folder}/caf\\xe9.png" in names and f"{folder}/dogs/00.png" in names
    assert capsys.readouterr().out.count(KINDS) == 2
    [line] = (tmp_path / f"f{suffix}.unreadable.txt").read_text().splitlines()
    assert line.startswith(f"{folder}/br\\xf6ken\\n.png\t")


@pytest.mark.parametrize("dry", ["--dry_run", "--max_steps 1"])
def test_pretraining_says_what_it_does_not_read(dry, folder, tmp_path, capsys):
    pretrain(tiny(folder, tmp_path / "run", dry))
    assert capsys.readouterr().out.count(KINDS) == (1 if "dry" in dry else 2)


def test_an_evaluation_and_names_of_any_bytes(model, tmp_path, monkeypatch, caplog):
    data = write_images(tmp_path / "data" / "train", 8, "ab")
    write_images(tmp_path / "data" / "test", 4, "ab")
    os.rename(data / "a" / "00.png", os.path.join(os.fsencode(data / "a"), b"caf\xe9.png"))
    (data / "a" / "x.heic").write_bytes(b"")
    paths = [f"{tmp_path}/data:{split}" for split in ("train", "test")]
    arguments = [model, "--train", paths[0], "--test", paths[1], "--k", 1, "--output", tmp_path / "k.json"]
    type_arguments(monkeypatch, "training/knn.py", *arguments)
    run_command(knn.main)
    assert "1 .heic: pip install pillow-heif" in caplog.text


def test_one_photograph_has_one_feature(model, tmp_path):
    """The same picture as a phone stores it, with 16 bits, as floats, and with an opaque alpha channel."""
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8), dtype=np.uint8)).resize((64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = tmp_path / "photographs"
    folder.mkdir()
    upright.save(folder / "a.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "b.png", exif=exif)
    Image.fromarray(np.asarray(upright).astype(np.uint16) * 257).save(folder / "c.png")
    Image.fromarray(np.asarray(upright).astype(np.float32) / 255).save(folder / "d.tiff")
    opaque = upright.convert("RGBA")
    opaque.save(folder / "e.webp", lossless=True)
    view = embed_all(model, folder, output=tmp_path / "f.npz").view
    assert len(view) == 5 and np.abs(view - view[0]).max() < 1e-5
    ignored = embed_all(model, folder, "--exif_orientation", "ignore", output=tmp_path / "g.npz").view
    assert np.abs(ignored[1] - view[1]).max() > 1e-3 and np.abs(ignored[0] - view[0]).max() < 1e-5


def test_thin_and_huge_images(model, tmp_path):
    folder = write_images(tmp_path / "images", 2)
    Image.new("RGB", (20_000, 1), (200, 100, 50)).save(folder / "strip.png")
    Image.new("L", (3000, 3000)).save(folder / "huge.png")
    features = embed_all(model, folder, "--max_pixels", "1e6", output=tmp_path / "f.npz")
    assert [os.path.basename(name) for name in features.names] == ["00.png", "01.png", "strip.png"]
    assert "3000 x 3000 pixels are more than" in (tmp_path / "f.npz.unreadable.txt").read_text()
    assert len(embed_all(model, folder, output=tmp_path / "g.npz").names) == 4


def test_images_in_archives(model, tmp_path):
    images = write_images(tmp_path / "images", 3)
    (tmp_path / "zipped").mkdir()
    with zipfile.ZipFile(tmp_path / "zipped" / "images.zip", "w") as archive:
        for path in sorted(images.iterdir()):
            archive.write(path, path.name)
    expected = embed_all(model, images, output=tmp_path / "f.npz").view
    places = [f"zip://{path.name}::{tmp_path}/zipped/images.zip" for path in sorted(images.iterdir())]
    rows = Dataset.from_dict({"image": places}).cast_column("image", ImageColumn(decode=False))
    rows.cast_column("image", ImageColumn()).save_to_disk(tmp_path / "saved")
    for data, more in ((tmp_path / "zipped", []), (tmp_path / "saved", ["--allow_paths"])):
        found = embed_all(model, data, *more, output=tmp_path / f"{data.name}.npz")
        np.testing.assert_allclose(found.view, expected, atol=1e-5)


def test_a_list_of_windows(model, tmp_path):
    images = write_images(tmp_path / "images", 2)
    (tmp_path / "list.txt").write_bytes("images\\00.png\r\nimages\\01.png\r\n".encode("utf-16"))
    assert embed_all(model, tmp_path / "list.txt", output=tmp_path / "f.npz").names == [
        str(path) for path in sorted(images.iterdir())
    ]


def test_images_that_look_wrong_are_named_before_training(tmp_path, capsys):
    folder = write_images(tmp_path / "images", 16)
    levels = np.random.default_rng(0).integers(0, 4096, (48, 48)).astype(np.uint16)
    for index in range(8):
        Image.fromarray(levels).save(folder / f"{index:02d}.png")
        Image.new("RGB", (48, 48), (255, 255, 255)).save(folder / f"white{index}.png")
    pretrain(tiny(folder, tmp_path / "run", "--dry_run"))
    shown = capsys.readouterr().out
    assert "Warning: 8 of 24 sampled images are nearly black: 00.png has grey levels 0 .. 16 of 255" in shown
    assert "Warning: 8 of 24 sampled images have one grey level alone: white0.png has grey levels 255 .. 255" in shown
    assert "add --white_level 4095" in shown
    pretrain(tiny(folder, tmp_path / "run", "--dry_run --white_level 4095"))
    assert "nearly black" not in capsys.readouterr().out
