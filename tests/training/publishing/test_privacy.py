# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Plants canaries in the options of runs, publishes them, and looks for them in every file of the published folder."""

import shutil
from dataclasses import fields
from pathlib import Path

import datasets
import pytest
import yaml
from huggingface_hub import ModelCard

from modeling_esvit import EsViTForPreTraining
from modeling_esvit.storage.atomic import rewrite_recorded
from tests.helpers.tiny_models import PVT
from tests.helpers.tiny_runs import tiny_auto, train, write_images
from training.learning.networks import build_config
from training.options.pretrain_options import PretrainOptions, parse_options
from training.options.public_options import PUBLIC
from training.publish import main
from training.state.provenance_record import write_provenances


CANARY = "canary7341"
TEXTS = [field.name for field in fields(PretrainOptions) if "str" in str(field.type)]


def find_canaries(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    return [str(path) for path in files if CANARY.encode() in path.read_bytes() or CANARY in path.name]


@pytest.mark.parametrize("form", ["{}", "{}/{}", "/home/{}/x", "https://{}/{}.tar"])
def test_no_text_of_an_option_is_published(run, tmp_path, form):
    """Takes every option that there is. Of a name OWNER/NAME, only the record knows that it was a folder."""
    shutil.copytree(run, tmp_path / "run")
    text = form.format(CANARY, CANARY)
    options = yaml.safe_load((run / "options.yaml").read_text())
    planted = {name: [text] if isinstance(options[name], list) else text for name in TEXTS if name not in PUBLIC}
    rewrite_recorded(tmp_path / "run" / "options.yaml", yaml.safe_dump(options | planted))
    (tmp_path / "run" / "provenance.json").unlink()
    if form != "{}/{}":
        write_provenances(tmp_path / "run", options | planted)
    main([str(tmp_path / "run"), "--repo_id", "ada/tiny", "--dry_run"])
    assert find_canaries(tmp_path / "run-hub") == []
    card = ModelCard.load(tmp_path / "run-hub" / "README.md")
    assert card.data.get("datasets") is None and card.data.get("base_model") is None


def test_a_folder_never_becomes_a_link_to_the_hub(run, tmp_path, monkeypatch):
    """Publishes a run on `patients/NAME` from another folder, where there is no such folder."""
    shutil.copytree(run, tmp_path / "run")
    options = yaml.safe_load((run / "options.yaml").read_text()) | {"data": f"patients/{CANARY}"}
    options |= {"init_from": "org/model", "knn_test": "org/labelled:test"}
    rewrite_recorded(tmp_path / "run" / "options.yaml", yaml.safe_dump(options))
    (tmp_path / "place" / "patients" / CANARY).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "place")
    (tmp_path / "run" / "provenance.json").unlink()
    write_provenances(tmp_path / "run", options)
    monkeypatch.chdir(tmp_path)
    main([str(tmp_path / "run"), "--repo_id", "ada/tiny", "--dry_run"])
    card = ModelCard.load(tmp_path / "run-hub" / "README.md")
    assert (card.data.get("datasets"), card.data.base_model) == (None, "org/model")
    assert "--train FOLDER --test org/labelled:test" in card.text and find_canaries(tmp_path / "run-hub") == []


@pytest.mark.parametrize("name", ["./runs/x", "nameless", "patients/ada"])
def test_a_base_model_is_a_name_on_the_hub(run, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "patients" / "ada").mkdir(parents=True)
    with pytest.raises(SystemExit):
        main([str(run), "--repo_id", "ada/tiny", "--dry_run", "--base_model", name])
    assert f"--base_model {name} is no name on the Hub" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_was_told_canaries_publishes_none(tmp_path):
    """Trains with a canary in every text that a run on files takes: folders, columns, splits, models."""
    place = tmp_path / CANARY
    for name in ("train", "test"):
        write_images(place / "files" / name, 13)
    images = [{"bytes": path.read_bytes(), "path": None} for path in sorted((place / "files" / "train").iterdir())]
    rows = {f"{CANARY}image": images, f"{CANARY}label": [row % 2 for row in range(len(images))]}
    features = datasets.Features({f"{CANARY}image": datasets.Image(), f"{CANARY}label": datasets.Value("int64")})
    data = place / "data"
    data.mkdir()
    for split in ("one", "two"):
        datasets.Dataset.from_dict(rows, features=features).to_parquet(data / f"{split}.parquet")
    splits = [{"split": f"{CANARY}{split}", "path": f"{split}.parquet"} for split in ("one", "two")]
    card = {"configs": [{"config_name": f"{CANARY}config", "data_files": splits}]}
    (data / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    named = f"--split {CANARY}one --config_name {CANARY}config --image_column {CANARY}image --cache {place}/cache"
    named += f" --label_column {CANARY}label --streaming --tar_index {place}/index --knn_every 1 --knn_k 3"
    named += f" --knn_train {data}:{CANARY}one --knn_test {data}:{CANARY}two --push_to_hub {CANARY}/{CANARY}"
    options = tiny_auto(data, place / "run", PVT, named)
    EsViTForPreTraining(build_config(parse_options(options))).save_pretrained(place / "model")
    train([*options, "--init_from", str(place / "model")])
    given = yaml.safe_load((place / "run" / "options.yaml").read_text())
    untold = {name for name in TEXTS if CANARY not in str(given[name])}
    assert untold == {"architecture", "augmentation", "revision", "tracker"}  # which cannot be anything, or not here
    main([str(place / "run"), "--repo_id", "ada/tiny", "--dry_run", "--output", str(tmp_path / "out")])
    assert find_canaries(tmp_path / "out") == []
