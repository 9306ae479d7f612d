# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Feature banks: what the model gives by hand, from sources and models of all kinds; made once, in parts, reused."""

import json
import logging
from pathlib import Path

import pytest
import timm
import torch
from datasets import ClassLabel, Dataset, Features, Image
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

import training.evaluation.knn as knn
import training.knn as program
from modeling_esvit.embed.engine import FeatureError
from modeling_esvit.images.decoding import decode
from tests.helpers.commands import type_arguments
from tests.helpers.tiny_runs import write_images, write_model
from training.data.sources import open_source
from training.features.bank import make_bank
from training.features.extraction import UnlabelledDataError
from training.features.frozen_models import FrozenModelError, load_frozen
from training.options.command import run_command


NUMBER = 11


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("model"), depths=[1, 2]))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), NUMBER, classes="abc")


def rows_of(images: Path) -> Dataset:
    source = open_source(images)
    records = [source.read(index) for index in range(len(source))]
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b", "c"])})
    columns = {"image": [Path(record.image).read_bytes() for record in records]}
    columns["image"] = [{"bytes": content, "path": None} for content in columns["image"]]
    return Dataset.from_dict(columns | {"label": [record.label for record in records]}, features=features)


def by_hand(model, source) -> torch.Tensor:
    pixels = [model.transform(decode(source.read(index))) for index in range(len(source))]
    with torch.no_grad():
        return model.features(torch.stack(pixels))


def save_shards(images: Path, folder: Path) -> str:
    """Two files of row groups of 3, which no part of 4 agrees with."""
    folder.mkdir()
    rows = rows_of(images)
    for shard, part in enumerate((range(5), range(5, NUMBER))):
        rows.select(part).to_parquet(folder / f"{shard}.parquet", batch_size=3)
    return str(folder)


def test_sources_of_all_kinds(model_folder, images, tmp_path):
    model = load_frozen(model_folder)
    expected = by_hand(model, open_source(images))
    shards = save_shards(images, tmp_path / "shards")
    rows_of(images).save_to_disk(tmp_path / "saved")
    sources = [open_source(images), open_source(tmp_path / "saved"), open_source(shards, streaming=True)]
    banks = [
        make_bank(model, str(number), source, tmp_path, part_size=4, batch_size=3)
        for number, source in enumerate(sources)
    ]
    for bank in banks:
        torch.testing.assert_close(bank.features(), expected)
        assert bank.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 3
        assert bank.class_names == ["a", "b", "c"] and len(bank.names) == len(set(bank.names)) == NUMBER
        torch.testing.assert_close(torch.cat(list(bank.pieces(3))), expected)
        assert [len(piece) for piece in bank.pieces(3)] == [3, 1, 3, 1, 3]
    assert banks[0].names[0] == "a/00.png" and banks[2].names[4] == "0.parquet, row 4"


def parts_of(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("part-*")}


def test_a_bank_is_made_once(model_folder, images, tmp_path, monkeypatch):
    def bank(**options):
        return make_bank(load_frozen(model_folder, **options), "x:train", open_source(images), tmp_path, part_size=4)

    first, made = bank(), parts_of(tmp_path)
    assert len(made) == 3
    assert torch.equal(bank().features(), first.features()) and parts_of(tmp_path) == made

    lost = sorted(made)[1]
    Path(lost).unlink()
    assert torch.equal(bank().features(), first.features())
    assert {path for path, time in parts_of(tmp_path).items() if made[path] != time} == {lost}

    Path(lost).write_bytes(b"damaged")
    assert torch.equal(bank().features(), first.features())
    assert {path for path, time in parts_of(tmp_path).items() if made[path] != time} == {lost}
    assert bank(n_last_blocks=2).features().shape == (NUMBER, 32)  # another feature is another bank
    assert len(list(tmp_path.iterdir())) == 2
    halves = bank(dtype=torch.bfloat16).features()  # and so is another type: no bank holds features of two
    assert len(list(tmp_path.iterdir())) == 3
    whole = bank().features()
    assert not torch.equal(halves, whole)
    torch.testing.assert_close(halves, whole, atol=0.1, rtol=0)


def test_other_images_or_weights_are_another_bank(model_folder, tmp_path):
    images = write_images(tmp_path / "images", 4, classes="ab")
    model = load_frozen(model_folder)
    make_bank(model, "x", open_source(images), tmp_path / "banks")
    (images / "a" / "00.png").write_bytes((images / "b" / "01.png").read_bytes())
    changed = make_bank(model, "x", open_source(images), tmp_path / "banks")
    torch.testing.assert_close(changed.features()[0], changed.features()[2])
    with torch.no_grad():
        model.model.encoder.norm.bias.add_(1)
    model.model.save_pretrained(tmp_path / "other")
    make_bank(load_frozen(str(tmp_path / "other")), "x", open_source(images), tmp_path / "banks")
    assert len(list((tmp_path / "banks").iterdir())) == 3


def test_last_blocks_are_the_linear_probes_feature(model_folder, images, tmp_path):
    model = load_frozen(model_folder, n_last_blocks=2)
    bank = make_bank(model, "x", open_source(images), tmp_path)
    view = make_bank(load_frozen(model_folder), "x", open_source(images), tmp_path)
    torch.testing.assert_close(bank.features()[:, -16:], view.features())
    with pytest.raises(FrozenModelError, match="name 1 to 3"):
        load_frozen(model_folder, n_last_blocks=4)


def test_models_of_others(images, tmp_path):
    torch.manual_seed(0)
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    ViTModel(ViTConfig(image_size=32, patch_size=8, **small)).save_pretrained(tmp_path / "vit")
    ResNetModel(ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1])).save_pretrained(tmp_path / "resnet")
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    for name in ("vit", "resnet"):
        (tmp_path / name / "preprocessor_config.json").write_text(json.dumps(processor))
    network = timm.create_model("resnet10t", num_classes=0)
    timm.models.save_for_hf(network, tmp_path / "timm", model_args={"num_classes": 0})
    for name, width in (("vit", 8), ("resnet", 8), ("timm:local-dir:", 512)):
        path = f"{name}{tmp_path / 'timm'}" if name.startswith("timm") else str(tmp_path / name)
        model = load_frozen(path)
        bank = make_bank(model, "x", open_source(images), tmp_path / "banks", batch_size=NUMBER)
        torch.testing.assert_close(bank.features(), by_hand(model, open_source(images)))
        assert bank.features().shape == (NUMBER, width)
    with pytest.raises(FrozenModelError, match="view feature, by --recipe view_features"):
        load_frozen(str(tmp_path / "vit"), n_last_blocks=1)
    with pytest.raises(FrozenModelError, match="timm cannot load 'no_such'"):
        load_frozen("timm:no_such")


def test_images_that_cannot_be_used(model_folder, images, tmp_path, caplog):
    copy = write_images(tmp_path / "copy", NUMBER, classes="abc")
    (copy / "a" / "00.png").write_bytes(b"no image")
    for _ in range(2):  # also known where the features were there already; the caller says it, once for all models
        with caplog.at_level(logging.WARNING):
            bank = make_bank(load_frozen(model_folder), "x", open_source(copy), tmp_path / "banks", part_size=1)
        assert len(bank) == len(bank.names) == NUMBER - 1
        assert "a/00.png" in bank.collect_unreadable(NUMBER).summary() and "a/00.png" not in caplog.text
    with pytest.raises(UnlabelledDataError):
        make_bank(load_frozen(model_folder), "x", open_source(copy / "a"), tmp_path / "banks")
    broken = load_frozen(model_folder)
    torch.nn.init.constant_(broken.model.encoder.norm.bias, torch.nan)
    with pytest.raises(FeatureError, match=r"a/00\.png is not finite.* 10 more of 11"):
        make_bank(broken, "broken", open_source(images), tmp_path / "banks")


def test_neighbours_of_streams_are_those_of_folders(model_folder, images, tmp_path, monkeypatch):
    model, test = load_frozen(model_folder), write_images(tmp_path / "test", 7, classes="bc")
    shards, tests = save_shards(images, tmp_path / "shards"), open_source(test)
    stream = open_source(shards, streaming=True)
    in_memory = knn.evaluate_knn(model.model, model.transform, open_source(images), tests, k=[1, 5])
    assert knn.evaluate_knn(model.model, model.transform, stream, tests, k=[1, 5]) == in_memory
    bank = make_bank(model, "train", stream, tmp_path / "banks", part_size=3)
    queries = make_bank(model, "test", tests, tmp_path / "banks", part_size=2)
    for name, size in (("BANK_CHUNK", 2), ("QUERY_CHUNK", 3), ("QUERY_CHUNKS", 1)):
        monkeypatch.setattr(knn, name, size)
    options = {"temperature": 0.07, "device": torch.device("cpu")}
    assert knn.evaluate_banks(bank, queries, k=[1, 5], **options) == in_memory
    assert "k10_top1" in knn.evaluate_banks(bank, queries, k=None, **options)


def command(monkeypatch, *arguments) -> None:
    type_arguments(monkeypatch, "training/knn.py", *arguments)
    run_command(program.main)


def test_command(model_folder, images, tmp_path, monkeypatch, capsys):
    test = write_images(tmp_path / "test", 4, classes="abc")
    output, features = tmp_path / "results" / "knn.json", tmp_path / "features"
    data = ["--train", images, "--test", test, "--k", 1, 3]
    command(monkeypatch, model_folder, *data, "--output", output, "--features", features, "--n_last_blocks", 3)
    result = json.loads(output.read_text())
    assert (result["k1_top1"], result["n_last_blocks"], result["test_images"]) == (1.0, 3, 4)  # the same images
    assert "| 1 | 100.00% |\n" in output.with_suffix(".md").read_text()
    assert "| 1 | 100.00% |\n" in capsys.readouterr().out
    assert len(list(features.iterdir())) == 2
    for wrong, message in ((["--k", 12], "from 1 to 11"), (["--n_last_blocks", 9], "name 1 to 3")):
        with pytest.raises(SystemExit, match=message):
            command(monkeypatch, model_folder, *data, *wrong)
    with pytest.raises(SystemExit, match="neither a folder of images or zip files nor"):
        command(monkeypatch, model_folder, "--train", "missing", "--test", test)
