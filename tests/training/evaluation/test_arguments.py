# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the arguments that evaluation programs share."""

import argparse
import os

import pytest

from modeling_esvit.images.data_errors import DataOptionError
from tests.helpers.tiny_runs import write_images
from training.evaluation.arguments import (
    add_comparison_argument,
    add_data_arguments,
    add_feature_arguments,
    add_reading_arguments,
    parse_and_check,
)
from training.features.bank import PART_SIZE


def parse(monkeypatch, *words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_data_arguments(parser)
    add_feature_arguments(parser)
    monkeypatch.setattr("sys.argv", ["program", "model", "--train", "a", "--test", "b", *map(str, words)])
    return parse_and_check(parser)


def test_defaults_and_the_folder_of_the_output(monkeypatch, tmp_path):
    found = parse(monkeypatch, "--output", tmp_path / "new" / "r.json")
    assert (found.model, found.train, found.test, found.n_last_blocks) == ("model", "a", "b", None)
    assert (found.batch_size, found.part_size, found.workers, found.features) == (64, PART_SIZE, 4, None)
    assert not (tmp_path / "new").exists()  # nothing is left behind if the program refuses later
    assert found.test_share is None


def test_without_test_data_a_share_of_the_training_data_is_held_out(monkeypatch, capsys):
    def parse_train(*words: object) -> argparse.Namespace:
        parser = argparse.ArgumentParser()
        add_data_arguments(parser)
        monkeypatch.setattr("sys.argv", ["program", "model", "--train", "a", *map(str, words)])
        return parse_and_check(parser)

    assert (parse_train().test, parse_train().test_share, parse_train("--test_share", 0.5).test_share) == (
        None,
        0.2,
        0.5,
    )
    for words, message in (
        (["--test_share", 1], "--test_share must lie between 0 and 1, got 1"),
        (["--test", "b", "--test_share", 0.5], "and --test names others: give one"),
    ):
        with pytest.raises(SystemExit):
            parse_train(*words)
        assert message in capsys.readouterr().err
    with pytest.raises(DataOptionError, match="same data: name a split .*; or leave --test out, which holds out"):
        parse_train("--test", "a")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--batch_size", 0], "--batch_size must be at least 1, got 0"),
        (["--part_size", -1], "--part_size must be at least 1, got -1"),
        (["--workers", 0], "--workers must be at least 1, got 0"),
        (["--output", "FOLDER"], "is a folder. Name a file in it"),
        (["--output", "FOLDER/r.md"], "r.md names the JSON file"),
        (["--output", "/proc/r.json"], "nothing can be written in /proc"),
        (["--output", "FOLDER/pipe"], "--output FOLDER/pipe is a device or a pipe, which a file would replace"),
        (["--features", "FOLDER/file"], "--features FOLDER/file: 'FOLDER/file' is a file where a folder has to be"),
        (["--features", "FOLDER/file/x"], "--features FOLDER/file/x: 'FOLDER/file' is a file where a folder has to be"),
    ],
)
def test_impossible_values_are_named(monkeypatch, tmp_path, capsys, words, message):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SystemExit):
        parse(monkeypatch, *(str(word).replace("FOLDER", str(tmp_path)) for word in words))
    assert message.replace("FOLDER", str(tmp_path)) in capsys.readouterr().err


def test_an_output_among_the_images_is_refused(monkeypatch, tmp_path):
    images = write_images(tmp_path / "images", 4, "ab")
    for option in ("--train", "--test"):
        with pytest.raises(DataOptionError, match="lies in .*/images', whose images are read"):
            parse(monkeypatch, option, images, "--output", images / "r.json")


@pytest.mark.parametrize("names", ["untrained untrained", "model"])
def test_a_model_is_not_compared_with_itself(names, monkeypatch, capsys):
    parser = argparse.ArgumentParser()
    add_reading_arguments(parser)
    add_comparison_argument(parser)
    monkeypatch.setattr("sys.argv", ["program", "model", "--against", *names.split()])
    with pytest.raises(SystemExit):
        parse_and_check(parser)
    assert f"--against names {names.split()[0]} twice, or as the model itself" in capsys.readouterr().err
