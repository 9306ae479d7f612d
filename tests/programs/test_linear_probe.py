# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the linear probe: it continues after a stop, reads streams, and gives one result on several processes."""

import json

import pytest

import training.evaluation.probe_run as probe_run
import training.features.frozen_models as frozen_models
import training.linear_probe as linear_probe
from tests.helpers.coloured_images import COLOURS, write_coloured_images
from tests.helpers.commands import run_program, torchrun, type_arguments
from tests.helpers.shard_server import write_parquet
from tests.helpers.tiny_runs import write_images, write_model
from training.options.command import run_command
from training.options.errors import OptionError


NUMBER, EPOCHS = 13, 3


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("model"), depths=[1, 2]))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    return write_images(root / "train", NUMBER, classes="abc"), write_images(root / "test", 7, classes="bc")


def arguments(model_folder, images, output, *changes) -> list[str]:
    data = [model_folder, "--train", images[0], "--test", images[1], "--output", output]
    options = ["--n_last_blocks", 1, 2, "--lr", 0.5, 50, "--epochs", EPOCHS, "--batch_size", 6]
    return [str(each) for each in (*data, *options, *changes)]


def probe(monkeypatch, *given) -> None:
    type_arguments(monkeypatch, "training/linear_probe.py", *given)
    run_command(linear_probe.main)


def test_a_stopped_probe_continues(model_folder, tmp_path, monkeypatch):
    images = (
        write_coloured_images(tmp_path / "train", COLOURS, 4, 0),
        write_coloured_images(tmp_path / "test", COLOURS, 3, 1),
    )
    probe(monkeypatch, *arguments(model_folder, images, tmp_path / "whole"))
    whole = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert set(whole["classifiers"]) == {"n1_lr0.5", "n1_lr50", "n2_lr0.5", "n2_lr50"}
    for name, scores in whole["classifiers"].items():
        tops = [epoch[name]["top1"] for epoch in whole["history"]]
        assert scores["best"]["top1"] == max(tops) and scores["last"]["top1"] == tops[-1]
        assert 0 <= scores["last"]["top1"] <= 1 and "top5" not in scores["last"]  # of three classes
    losses = [epoch["n2_lr0.5"]["loss"] for epoch in whole["history"]]
    assert losses[-1] < losses[0]
    assert f"**{whole['best']}**" in (tmp_path / "whole" / "result.md").read_text()
    assert (tmp_path / "whole" / "result.png").stat().st_size > 5000
    figures, scores = whole["figures"], whole["classifiers"][whole["best"]]
    assert [figure["value"] for figure in figures] == [scores[e]["top1"] for e in ("best", "last")]
    assert whole["chance"] == 1 / 3 and {(figure["chance"], figure["before"]) for figure in figures} == {(1 / 3, None)}
    assert (
        figures[0]["name"] == f"linear top-1 ({whole['best']}, best epoch)"
        and figures[0]["dataset"] == "a folder of images"
    )

    save = probe_run.ProbeRun.save

    def save_and_stop(self):
        save(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(probe_run.ProbeRun, "save", save_and_stop)
    with pytest.raises(SystemExit, match="130"):
        probe(monkeypatch, *arguments(model_folder, images, tmp_path / "stopped"))
    monkeypatch.setattr(probe_run.ProbeRun, "save", save)
    probe(monkeypatch, *arguments(model_folder, images, tmp_path / "stopped"))
    assert json.loads((tmp_path / "stopped" / "result.json").read_text()) == whole
    with pytest.raises(SystemExit, match="a probe with other lr"):
        probe(monkeypatch, *arguments(model_folder, images, tmp_path / "stopped", "--lr", 1))


def test_streams_and_labels_without_names(model_folder, images, tmp_path, monkeypatch):
    shards = tmp_path / "shards"
    shards.mkdir()
    write_parquet(shards, [5, 4], size=40)  # labels 0 .. 8
    given = arguments(model_folder, (shards, images[1]), tmp_path / "probe", "--streaming", "--epochs", 1)
    given = [each if each != str(images[1]) else f"{shards}/train-00001.parquet" for each in given]
    with pytest.raises(SystemExit, match="--num_classes"):
        probe(monkeypatch, *given)
    with pytest.raises(SystemExit, match="classes '0', '1', '2', '3', and the test data '5', .*none is in both"):
        probe(monkeypatch, *given, "--num_classes", "4")
    probe(monkeypatch, *given, "--num_classes", "9")
    result = json.loads((tmp_path / "probe" / "result.json").read_text())
    assert (result["classes"], result["test_images"], result["unknown_class_images"]) == (9, 4, 0)


def test_a_model_with_few_blocks_is_probed_by_its_view_feature(model_folder, images, tmp_path, monkeypatch, capsys):
    """An adapted model has one block, as transformers and timm hide theirs: the command of the README takes it, too."""
    data = [model_folder, "--train", images[0], "--test", images[1], "--output", tmp_path / "probe"]
    loaded, load = [], frozen_models.load_image_model
    monkeypatch.setattr(
        frozen_models, "load_image_model", lambda *given, **more: loaded.append(given[0]) or load(*given, **more)
    )
    probe(monkeypatch, *data, "--epochs", 1, "--batch_size", 6, "--lr", 0.5)
    assert loaded == [model_folder]
    assert "has no features of 4 blocks; --n_last_blocks takes others" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "probe" / "result.json").read_text())["classifiers"]) == {"n0_lr0.5"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--lr", 0], "lr positive"),
        (["--lr", 1, "nan"], "lr positive and finite"),
        (["--n_last_blocks", 0, 2], "stands alone"),
        (["--n_last_blocks", 9], "name 1 to 3"),
        (["--recipe", "none"], "one of: published_sweep"),
    ],
)
def test_impossible_options(model_folder, images, tmp_path, monkeypatch, changes, message):
    with pytest.raises(SystemExit, match=message):
        probe(monkeypatch, *arguments(model_folder, images, tmp_path, *changes))


def test_own_recipes(tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "mine.yaml"
    given = ["model", "--train", "a", "--test", "b", "--output", "c", "--recipe", str(recipe)]
    type_arguments(monkeypatch, "training/linear_probe.py", *given)
    recipe.write_text("lr: [1e-4, 0.1]\nn_last_blocks: 2\n")  # YAML takes 1e-4 for a word
    options = linear_probe.parse_arguments()
    assert (options.lr, options.n_last_blocks, options.epochs) == ([1e-4, 0.1], [2], 100)
    recipe.write_text("lrs: [1]\n")
    with pytest.raises(OptionError, match="has lrs; a recipe of a probe has lr, n_last_blocks, epochs"):
        linear_probe.parse_arguments()
    recipe.write_text("epochs: many\n")
    with pytest.raises(SystemExit):
        linear_probe.parse_arguments()
    assert "argument --epochs: invalid int value: 'many'" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", sorted(path.stem for path in linear_probe.RECIPES.glob("*.yaml")))
def test_recipes_are_the_published_protocol(recipe, monkeypatch):
    given = ["model", "--train", "a", "--test", "b", "--output", "c", "--recipe", recipe]
    type_arguments(monkeypatch, "training/linear_probe.py", *given)
    options = linear_probe.parse_arguments()
    assert (options.epochs, options.batch_size) == (100, 1024)
    probe_run.check_probe_options(options, 8)
    type_arguments(monkeypatch, "training/linear_probe.py", *given, "--epochs", "7")
    assert linear_probe.parse_arguments().epochs == 7  # the command line goes on top


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(model_folder, images, tmp_path):
    results = []
    for number, launcher in enumerate((["python"], torchrun(2))):
        given = arguments(model_folder, images, tmp_path / str(number), "--device", "cpu")
        offline = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
        run_program([*launcher, "training/linear_probe.py", *given], **offline)
        results.append(json.loads((tmp_path / str(number) / "result.json").read_text()))
    one, two = results
    for ours, theirs in zip(one.pop("history"), two.pop("history"), strict=True):
        for name, scores in ours.items():
            assert scores == pytest.approx(theirs[name], rel=1e-4)
    for name in ("classes", "test_images", "best"):
        assert one[name] == two[name]


@pytest.mark.slow
def test_small_data_have_ten_steps_an_epoch_and_others_beside(model_folder, images, tmp_path, monkeypatch, capsys):
    other = write_model(tmp_path / "other")
    given = [model_folder, "--train", images[0], "--test", images[1], "--output", tmp_path / "probe", "--epochs", 1]
    probe(monkeypatch, *given, "--n_last_blocks", 2, "--against", "untrained", other)
    result = json.loads((tmp_path / "probe" / "result.json").read_text())
    assert result["batch_size"] == 1 and list(result["against"]) == ["untrained", str(other)]
    assert list(result["against"]["untrained"]["classifiers"]) == ["n2_lr0.001"]
    assert list(result["against"][str(other)]["classifiers"]) == ["n0_lr0.001"]
    shown = capsys.readouterr().out
    assert "Steps of 1 images: 1024, or a tenth of the 13 training images" in shown
    assert "| chance | 0.00% |" in shown  # most training images are of class a, and no test image is
    assert "above untrained" in shown or "below untrained" in shown
