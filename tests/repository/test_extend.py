# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the snippets of training/EXTEND.md, section by section, and checks that what they add works."""

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from transformers import AutoModel

from modeling_esvit import EsViTConfig, losses
from modeling_esvit.analysis.token_places import regions_of
from modeling_esvit.errors import EsViTError
from modeling_esvit.families import ARCHITECTURES, FAMILIES
from tests.helpers.documents import snippets
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import read_log, tiny, train, write_images, write_model
from training.options.pretrain_options import parse_options
from training.run.estimate import estimate
from training.views.draw import POLICIES


PAGE = (ROOT / "training" / "EXTEND.md").read_text()
SECTIONS = {text.partition("\n")[0]: list(snippets(text)) for text in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}


@pytest.fixture(autouse=True)
def sandbox(tmp_path, monkeypatch):
    """Works in an empty folder, and forgets afterwards what snippets have registered."""
    monkeypatch.chdir(tmp_path)
    tables: list[dict] = [FAMILIES, ARCHITECTURES, POLICIES]
    kept = [dict(table) for table in tables]
    yield
    for table, before in zip(tables, kept, strict=True):
        table.clear()
        table.update(before)


def run_section(title: str) -> dict[str, Any]:
    """Runs the snippets of a section one after the other, as in a notebook. Returns the names that they define."""
    names: dict[str, Any] = {"__name__": "extend"}
    for snippet in SECTIONS[title]:
        exec(compile(snippet, f"EXTEND.md, {title}", "exec"), names)
    return names


def test_every_snippet_has_a_test():
    with_snippets = {title for title, found in SECTIONS.items() if found}
    assert with_snippets == {"An architecture", "A loss term", "An augmentation", "A data source", "An evaluation"}


def test_the_map_names_functions_that_exist():
    rows = re.findall(r"^\| .* \| \[`(.*)`\]\((.*)\) \| `([\w.]+)` \|$", PAGE, re.MULTILINE)
    assert len(rows) == 23
    for path, link, name in rows:
        assert (ROOT / "training" / link).resolve() == ROOT / path
        found = import_module(path.removesuffix(".py").replace("/", "."))
        for part in name.split("."):
            found = getattr(found, part)


def test_architecture(tmp_path):
    names = run_section("An architecture")
    assert names["regions"].shape == (2, 14 * 14, 192)
    names["model"].save_pretrained(tmp_path / "model")
    again = AutoModel.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        regions, places = regions_of(again, torch.randn(1, 3, 64, 50))
    assert places.grid == (4, 3) and regions.shape == (1, 12, 192)
    with pytest.raises(ValueError, match="10 x 40 pixels are less than a patch of 16"):
        again(torch.randn(1, 3, 10, 40))
    with pytest.raises(ValueError, match="window_size is for a"):
        EsViTConfig.from_architecture("patch-mlp-tiny", window_size=7)


def test_loss_term(tmp_path, monkeypatch):
    monkeypatch.setattr(losses, "esvit_loss", losses.esvit_loss)  # is put back afterwards
    options = parse_options(tiny(write_images(tmp_path / "images"), tmp_path / "run", "--max_steps 1"))
    before = estimate(options, torch.device("cpu"))
    run_section("A loss term")
    train(options)
    [record] = read_log(tmp_path / "run")
    known = 0.5 * record["view_loss"] + 0.5 * record["region_loss"]
    assert record["loss"] == pytest.approx(known + 0.1 * record["distance_loss"]) != pytest.approx(known)
    assert estimate(options, torch.device("cpu")).flops_per_image > before.flops_per_image


def test_augmentation(tmp_path):
    Image.fromarray(skimage.data.coffee()).save(tmp_path / "photo.jpg")
    views = run_section("An augmentation")["views"]
    assert [tuple(view.shape) for view in views] == [(3, 224, 224)] * 2 + [(3, 96, 96)] * 4
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for view in views:  # a grey image has three equal channels
        channels = view.permute(1, 2, 0).numpy() * std + mean
        assert np.ptp(channels, axis=2).max() < 1e-5 < np.ptp(channels)
    images = write_images(tmp_path / "images")
    with pytest.raises(EsViTError, match="augmentation 'green' is none of .*grey"):
        train(tiny(images, tmp_path / "run", "--augmentation green"))
    train(tiny(images, tmp_path / "run", "--augmentation grey --max_steps 1"))  # by its name, as the page says
    assert Path(tmp_path / "run" / "teacher" / "model.safetensors").is_file()


def test_data_source(tmp_path):
    write_images(tmp_path / "photographs", 6)
    paths = sorted(Path("photographs").glob("*.png"))
    (tmp_path / "photographs.csv").write_text("".join(f"{path},{'ab'[i % 2]}\n" for i, path in enumerate(paths)))
    batch = run_section("A data source")["batch"]
    assert [tuple(group.shape) for group in batch.groups] == [(4, 3, 224, 224), (4, 3, 96, 96)]
    assert set(batch.labels.tolist()) <= {0, 1} and not batch.skipped


@pytest.mark.usefixtures("fresh_accelerate")
def test_evaluation(tmp_path):
    write_model(tmp_path / "runs" / "mine" / "teacher")
    for split in ("train", "test"):
        write_images(tmp_path / "my" / "labelled" / split, 8, "ab")
    names = run_section("An evaluation")
    result = json.loads((tmp_path / "results" / "means.json").read_text())
    assert 0 <= result["top1"] == names["top1"] <= 1
    assert result["figures"][0]["name"] == "nearest class mean, top-1" and result["figures"][0]["split"] == "test"
    assert (tmp_path / "results" / "means.md").read_text().startswith("# Nearest class mean")
