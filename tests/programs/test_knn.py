# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the k-NN evaluation: what it must not disturb, which data it refuses, and several processes."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor

import training.evaluation.knn as knn
import training.knn as program
from modeling_esvit import EsViTConfig, EsViTModel
from modeling_esvit.embed.engine import FeatureError
from modeling_esvit.images.data_errors import DataOptionError, EmptySourceError
from modeling_esvit.images.transform import make_evaluation_transform
from tests.helpers.coloured_images import COLOURS, write_coloured_images
from tests.helpers.commands import run_program, torchrun, type_arguments
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import write_model
from training.data.named_data import split_train_and_test
from training.data.sources import open_source
from training.features.extraction import UnlabelledDataError
from training.features.frozen_models import UNTRAINED_SEED
from training.options.command import run_command


@pytest.fixture
def images(tmp_path):
    return write_coloured_images(tmp_path / "train", COLOURS, 5, 0), write_coloured_images(
        tmp_path / "test", COLOURS, 3, 1
    )


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"image_size": 32, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
    return EsViTModel(EsViTConfig(drop_path_rate=0.5, **sizes))


def pixel_values(image):
    return torch.from_numpy(np.array(image.resize((32, 32)))).permute(2, 0, 1) / 127.5 - 1


def evaluate_folders(model, train, test, **options):
    return knn.evaluate_knn(model, pixel_values, open_source(train), open_source(test), **options)


def random_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def test_evaluation_leaves_training_as_it_was(model, images):
    model.train()
    model.encoder.norm.eval()  # a frozen part
    modes, states = [module.training for module in model.modules()], random_states()
    first = evaluate_folders(model, *images, k=[1, 15], batch_size=4)
    assert [module.training for module in model.modules()] == modes
    assert random_states() == states
    assert first == evaluate_folders(model, *images, k=[1, 15], batch_size=9, num_workers=1)  # drop path is off
    assert first["k1_top1"] == 1.0 and not any(name.endswith("top5") for name in first)  # there are three classes
    assert (first["train_images"], first["test_images"], first["classes"]) == (15, 9, 3)
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_default_neighbours_are_those_that_fit(model, images):
    assert [name for name in evaluate_folders(model, *images) if name.startswith("k")] == ["k10_top1"]
    with pytest.raises(knn.NeighbourCountError, match="from 1 to 15"):
        evaluate_folders(model, *images, k=[20])
    assert knn.choose_default_counts(250) == [10, 20, 100, 200] and knn.choose_default_counts(3) == [3]


@pytest.mark.parametrize(
    "words, message",
    [("--k 5 0", "--k must be numbers from 1 on, got 5 0"), ("--temperature nan", "temperature is nan, but must be")],
)
def test_impossible_votes_are_refused_before_any_feature_is_computed(words, message, monkeypatch, capsys):
    type_arguments(
        monkeypatch, "training/knn.py", "no model", "--train", "no data", "--test", "no other", *words.split()
    )
    with pytest.raises(SystemExit) as error:
        run_command(program.main)
    assert message in capsys.readouterr().err + str(error.value)


def test_classes_are_compared_by_name(model, images, tmp_path):
    other = {"red": COLOURS["red"], "yellow": (230, 230, 30)}  # red is class 0 here and class 2 in the training data
    result = evaluate_folders(model, images[0], write_coloured_images(tmp_path / "other", other, 2, 2), k=[5])
    assert (result["k5_top1"], result["unknown_class_images"]) == (0.5, 2)


def test_unreadable_images_are_left_out_and_named(model, images, caplog):
    (images[1] / "red" / "0.png").write_bytes(b"no image")
    result = evaluate_folders(model, *images, k=[5])
    assert (result["k5_top1"], result["test_images"]) == (1.0, 8)
    assert "Skipped 1 unreadable image:\n  red/0.png: " in caplog.text and "not an image" in caplog.text
    for path in images[1].rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(EmptySourceError, match="0 of 9 images can be read. Skipped 9 unreadable .*(\n.*)*red/0.png: "):
        evaluate_folders(model, *images, k=[5])


def test_data_that_cannot_be_evaluated(model, images):
    broken = EsViTModel(model.config)
    torch.nn.init.constant_(broken.encoder.norm.bias, torch.nan)
    with pytest.raises(FeatureError, match=r"blue/0\.png is not finite.* 14 more of 15"):
        evaluate_folders(broken, *images, k=[5])
    with pytest.raises(UnlabelledDataError):
        evaluate_folders(model, images[0], images[1] / "red", k=[5])
    with pytest.raises(DataOptionError, match="name a split"):
        split_train_and_test(f"{images[0]}", f"{images[0]}:red")


def run_knn(arguments, launcher, home) -> dict[str, float]:
    offline = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    done = run_program([*launcher, "training/knn.py", *arguments], **offline)
    assert done.stdout.count("top-1") == 1  # processes that do not know of each other would each print a table
    return json.loads(Path(arguments[-1]).read_text())


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(model, tmp_path):
    colours = {f"class {i}": (20 * i, 120, 250 - 20 * i) for i in range(12)}  # close enough for mistakes
    train, test = (
        write_coloured_images(tmp_path / "a", colours, 6, 3),
        write_coloured_images(tmp_path / "b", colours, 3, 4),
    )
    (test / "class 3" / "1.png").write_bytes(b"no image")
    model.save_pretrained(tmp_path / "model")
    options = ["--k", 3, 10, "--batch_size", 7, "--dtype", "float32", "--part_size", 10, "--device", "cpu"]
    arguments = [tmp_path / "model", "--train", train, "--test", test, *options]
    before = sorted((ROOT / "training" / "metrics").rglob("*"))

    one = run_knn([*arguments, "--output", tmp_path / "one.json"], ["python"], tmp_path / "home")
    two = run_knn([*arguments, "--output", tmp_path / "two.json"], torchrun(2), tmp_path / "home")

    assert one == two
    assert [(figure["name"], figure["value"]) for figure in one["figures"]] == [("k-NN top-1, k = 10", one["k10_top1"])]
    assert (
        one["command"]
        == "python training/knn.py MODEL --train FOLDER --test FOLDER --k 3 10 --batch_size 7 --dtype float32"
    )
    assert one["test_images"] == 35 and 0.2 < one["k10_top1"] < 1.0
    transform = make_evaluation_transform(AutoImageProcessor.from_pretrained(tmp_path / "model"))
    library = knn.evaluate_knn(model, transform, open_source(train), open_source(test), k=[3, 10])
    assert library == {name: one[name] for name in library}
    assert sorted((ROOT / "training" / "metrics").rglob("*")) == before


def test_one_folder_is_parted_into_training_and_test_images(model, tmp_path, monkeypatch, capsys, caplog):
    images = write_coloured_images(tmp_path / "images", COLOURS, 10, 0)
    model.save_pretrained(tmp_path / "model")
    for number in range(10):  # half of one class
        (images / "red" / f"{number}.png").write_bytes(b"no image") if number % 2 else None
    given = ["training/knn.py", tmp_path / "model", "--train", images, "--device", "cpu", "--k", 3]
    given += ["--output", tmp_path / "r.json", "--features", tmp_path / "features"]
    type_arguments(monkeypatch, *given, "--against", "untrained", write_model(tmp_path / "other"))
    run_command(program.main)
    assert f"{images}: holds out 6 of 30 images, 20% of each class, for testing." in capsys.readouterr().out
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["train"], result["test"], result["test_share"]) == (str(images), None, 0.2)
    assert result["train_images"] + result["test_images"] == 25 and result["test_images"] >= 4
    assert {(of["train_images"], of["test_images"]) for of in result["against"].values()} == {
        (result["train_images"], result["test_images"])
    }
    assert result["figures"][0]["split"] == "20% of each class" and "k3_top5" not in result
    for number in (1, 3, 5, 7, 9):  # three models, one table, each name once
        assert caplog.text.count(f"red/{number}.png") == 1
    banks = sorted(path.name for path in (tmp_path / "features").iterdir())
    assert len(banks) == 6
    type_arguments(monkeypatch, *given, "--test_share", 0.4)
    run_command(program.main)
    assert "holds out 12 of 30 images" in capsys.readouterr().out
    assert len([*(tmp_path / "features").iterdir()]) == 8  # another share has other features
    type_arguments(monkeypatch, *given, "--test", images)
    with pytest.raises(SystemExit, match="are the same data: name a split"):
        run_command(program.main)


def test_a_model_stands_beside_others_its_untrained_self_and_chance(model, images, tmp_path, monkeypatch, capsys):
    other = write_model(tmp_path / "other")
    model.save_pretrained(tmp_path / "model")
    given = [
        tmp_path / "model",
        "--train",
        images[0],
        "--test",
        images[1],
        "--k",
        1,
        3,
        "--output",
        tmp_path / "r.json",
    ]
    type_arguments(monkeypatch, "training/knn.py", *given, "--dtype", "float32", "--against", "untrained", other)
    program.main()
    result = json.loads((tmp_path / "r.json").read_text())
    assert list(result["against"]) == ["untrained", str(other)] and result["chance"] == 1 / 3
    torch.manual_seed(UNTRAINED_SEED)
    transform = make_evaluation_transform(AutoImageProcessor.from_pretrained(tmp_path / "model"))
    for name, network in (("untrained", EsViTModel(model.config)), (str(other), EsViTModel.from_pretrained(other))):
        expected = knn.evaluate_knn(network, transform, *map(open_source, images), k=[1, 3])
        assert name == str(other) or result["against"][name] == expected
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(" | ")[0] for line in lines if line.startswith("| ")]
    assert rows[2:] == [f"| {tmp_path / 'model'}", "| untrained", f"| {other}", "| chance"]
    assert lines[-1].startswith(f"By top-1, k = 1, {tmp_path / 'model'}: ") and "above chance" in lines[-1]
