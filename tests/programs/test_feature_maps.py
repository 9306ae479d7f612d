# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Maps of features and sheets of neighbours: rows found, drawn, and named."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import training.feature_maps as feature_maps
from tests.helpers.commands import run_program, torchrun
from tests.helpers.tiny_runs import write_images, write_model
from training.data.sources import open_source
from training.features.bank import make_bank
from training.features.extraction import LabelledImages
from training.features.frozen_models import load_frozen
from training.options.command import run_command


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(write_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """13 images each of two classes; the first of all cannot be read, and two are the same."""
    path = write_images(tmp_path_factory.mktemp("images") / "data", classes="ab")
    (path / "a" / "00.png").write_bytes(b"no image")
    (path / "b" / "99.png").write_bytes((path / "b" / "25.png").read_bytes())
    return path


@pytest.fixture(scope="module")
def bank(folder, images, tmp_path_factory):
    model, source = load_frozen(folder), open_source(str(images))
    return make_bank(model, "data", source, tmp_path_factory.mktemp("bank")), LabelledImages(source, model.transform)


def test_neighbours_are_the_nearest_but_oneself(bank):
    features = torch.nn.functional.normalize(bank[0].features(), dim=1)
    queries = torch.tensor([3, 0, len(bank[0]) - 1])
    similarity, rows = feature_maps.find_neighbours(bank[0], queries, 4)
    for query, scores, found in zip(queries.tolist(), similarity, rows, strict=True):
        cosines = features @ features[query]
        cosines[query] = -2
        torch.testing.assert_close(scores, cosines.topk(4).values)
        assert query not in found.tolist()
    assert rows[2, 0] == len(bank[0]) - 2 and similarity[2, 0] == pytest.approx(1, abs=1e-6)  # its copy
    assert feature_maps.find_neighbours(bank[0], queries, 1000)[1].shape == (3, len(bank[0]) - 1)


def test_queries_are_of_all_classes():
    labels = torch.tensor([0] * 50 + [1] * 2 + [2] * 5)
    chosen = feature_maps.choose_queries(labels, 6, seed=0)
    assert labels[chosen].sort().values.tolist() == [0, 0, 1, 1, 2, 2]
    assert labels[feature_maps.choose_queries(labels, 3, seed=1)].unique().tolist() == [0, 1, 2]
    assert len(feature_maps.choose_queries(labels, 100, seed=1)) == 57


@pytest.mark.parametrize("method", ["tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_like_features_are_neighbours_on_the_map(method):
    if method == "umap":
        pytest.importorskip("umap")
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 1, 16, generator=generator) * 10
    features = (centres + torch.randn(3, 20, 16, generator=generator)).flatten(0, 1)
    points = torch.from_numpy(feature_maps.project(features, method, seed=0))
    nearest = (torch.cdist(points, points) + torch.eye(60) * 1e6).argmin(dim=1)
    assert torch.equal(nearest // 20, torch.arange(60) // 20)
    again = feature_maps.project(features, method, seed=0)
    assert np.array_equal(again, points.numpy())


def test_a_sheet_has_no_more_images_than_fit(tmp_path, capsys):
    with pytest.raises(SystemExit):
        feature_maps.main(["MODEL", "--data", "x", "--output", str(tmp_path / "maps"), "--queries", "500"])
    assert (
        "--queries and --neighbours can be 100 at most, the images of a sheet; got 500 and 8" in capsys.readouterr().err
    )


def test_command(folder, images, tmp_path, capsys):
    command = [folder, "--data", str(images), "--output", str(tmp_path / "maps"), "--features", str(tmp_path / "f")]
    for options in (["--queries", "3", "--neighbours", "2"], ["--images", "10", "--queries", "2"]):
        feature_maps.main([*command, *options])
        assert {path.name for path in (tmp_path / "maps").iterdir()} == {"map.png", "neighbours.png", "map.json"}
    assert "of the 8 nearest neighbours of 2 images are of their class" in capsys.readouterr().out
    rows = json.loads((tmp_path / "maps" / "map.json").read_text())
    assert len(rows) == 10 and {row["class"] for row in rows} == {"a", "b"} and rows[0]["name"].endswith(".png")


def test_what_users_get_wrong(folder, images, tmp_path, monkeypatch):
    def fails(message, *command):
        with pytest.raises(SystemExit, match=f"error: .*{message}"):
            run_command(lambda: feature_maps.main([*command, "--output", str(tmp_path)]))

    (tmp_path / "few" / "a").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "few" / "a" / "x.png")
    fails("at least 4 images; there are 1", folder, "--data", str(tmp_path / "few"))
    fails("labels", folder, "--data", str(images / "a"))
    monkeypatch.setitem(sys.modules, "umap", None)
    fails("pip install umap-learn", folder, "--data", str(images), "--method", "umap")


@pytest.mark.slow
def test_of_two_processes_one_draws(folder, images, tmp_path):
    options = [folder, "--data", images, "--device", "cpu", "--output", tmp_path / "maps"]
    done = run_program([*torchrun(2), "training/feature_maps.py", *options], HF_HUB_OFFLINE="1")
    assert done.stdout.count("nearest neighbours of") == 1
    assert len(json.loads((tmp_path / "maps" / "map.json").read_text())) == 26
