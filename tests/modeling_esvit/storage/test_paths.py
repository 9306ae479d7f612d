# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks paths as users type them: the home folder, and empty ones, in every program that takes a path."""

import argparse
import runpy
from pathlib import Path

import pytest

from modeling_esvit.embed.inputs import NoImagesError, find_images
from modeling_esvit.errors import EsViTError
from modeling_esvit.images.data_errors import DataOptionError
from modeling_esvit.storage.paths import parse_name, parse_path
from modeling_esvit.storage.run_folders import find_model
from tests.helpers.commands import type_arguments
from tests.helpers.paths import ROOT
from training.data.named_data import find_place
from training.data.sources import open_source
from training.options.errors import OptionError
from training.options.recipes import load_recipe
from training.pretrain import main


def test_the_home_folder_is_put_in(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert (
        parse_path("~/runs") == Path("/home/ada/runs")
        and parse_name("~/photographs:test") == "/home/ada/photographs:test"
    )
    assert parse_name("org/name") == "org/name" and parse_name("https://host/~ada/x.jpg") == "https://host/~ada/x.jpg"


@pytest.mark.parametrize("url", ["s3://bucket/run", "hf://buckets/ada/runs", "file:///home/ada/run"])
def test_urls_are_no_paths(url, tmp_path, monkeypatch):
    """nextflow issue 1185: a folder called `s3:` is made instead, and nobody looks there."""
    monkeypatch.chdir(tmp_path)
    said = "is a URL, and only folders and files of this machine can be used here"
    with pytest.raises(argparse.ArgumentTypeError, match=said):
        parse_path(url)
    for command in (f"training/knn.py m --train t --test t --output {url}", f"training/publish.py {url} --repo_id a/b"):
        type_arguments(monkeypatch, *command.split())
        with pytest.raises(SystemExit):
            runpy.run_path(str(ROOT / command.split()[0]), run_name="__main__")
    for option in ("output", "cache", "tar_index"):
        with pytest.raises(SystemExit, match=f"error: {option}: '{url}' {said}"):
            main(["--data", str(tmp_path), f"--{option}", url])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("empty", ["", " "])
def test_empty_ones_are_refused(empty):
    with pytest.raises(argparse.ArgumentTypeError, match="it is empty; give a path or a name"):
        parse_path(empty)


@pytest.mark.parametrize(
    "command",
    [
        "training/knn.py m --train t --test EMPTY",
        "training/knn.py EMPTY --train t --test t",
        "training/knn.py m --train t --test t --output EMPTY",
        "training/linear_probe.py m --train t --test t --output EMPTY",
        "training/linear_features.py m --train EMPTY --test t",
        "training/correspondence.py m --data EMPTY",
        "training/transfer.py m --output o.json --against EMPTY",
        "training/throughput.py EMPTY --output o.json",
        "training/attention.py m EMPTY",
        "training/attention_entropy.py m EMPTY",
        "training/region_colours.py m EMPTY",
        "training/feature_maps.py m --data t --output EMPTY",
        "training/publish.py EMPTY --repo_id org/name",
        "examples/finetune.py m --data EMPTY --output o",
        "examples/continue_pretraining.py EMPTY --data d --output o",
        "examples/continue_pretraining.py m --data d --output EMPTY",
        "examples/similar_images.py m d --query EMPTY",
        "examples/similar_images.py m EMPTY --query q",
        "examples/match_photographs.py m EMPTY right.jpg",
        "examples/match_photographs.py m left.jpg EMPTY",
        "examples/segment.py EMPTY",
        "examples/correspondences.py EMPTY",
    ],
)
def test_programs_refuse_empty_paths(command, monkeypatch, capsys):
    program, *arguments = ["" if word == "EMPTY" else word for word in command.split()]
    type_arguments(monkeypatch, program, *arguments)
    with pytest.raises(SystemExit):
        runpy.run_path(program, run_name="__main__")
    assert "it is empty; give a path or a name" in capsys.readouterr().err


def test_the_home_folder_of_an_unknown_user_is_a_folder_that_does_not_exist():
    """`pathlib` cannot expand it, which is no reason for a traceback."""
    for name in ("~nobody-of-this-name/photographs", "~nobody-of-this-name/*.parquet"):
        with pytest.raises(EsViTError, match="~nobody-of-this-name"):
            open_source(name)
        with pytest.raises(EsViTError, match="~nobody-of-this-name"):
            find_images(name)
    assert find_model("~nobody-of-this-name/run") == "~nobody-of-this-name/run"
    assert find_place("~nobody-of-this-name/photographs", None) is None
    with pytest.raises(OptionError, match="~nobody-of-this-name"):
        load_recipe("~nobody-of-this-name/recipe.yaml", ROOT / "training/recipes")


def test_functions_refuse_empty_names():
    with pytest.raises(DataOptionError, match="Give --data: your folder"):
        open_source("")
    with pytest.raises(NoImagesError, match="An input is empty"):
        find_images([""])
