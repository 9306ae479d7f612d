# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks which model of a run or folder is published, and that damage is reported."""

import json
import shutil

import pytest
import torch
from transformers import AutoModel

from modeling_esvit import EsViTConfig
from modeling_esvit.storage.manifest import name_record
from modeling_esvit.storage.run_folders import DamagedModelError
from modeling_esvit.storage.weights_record import ProvenanceError
from tests.helpers.tiny_runs import flip_bit
from training.publish import main
from training.publishing.source import SourceError, find_source, load_model


def test_a_run_whose_log_or_options_are_damaged(run, tmp_path):
    """Ignores half a line, which a killed process may leave."""
    for name in ("whole", "damaged"):
        shutil.copytree(run, tmp_path / name)
    with (tmp_path / "whole" / "log.jsonl").open("a") as log:
        log.write('{"step": 7, "lo')
    assert find_source(tmp_path / "whole").records == find_source(run).records
    for text, message in ((": [", "options.yaml is damaged"), ("- a", "options.yaml holds no options")):
        (tmp_path / "damaged" / "options.yaml").write_text(text)
        with pytest.raises(ProvenanceError, match=message):
            find_source(tmp_path / "damaged")


@pytest.mark.parametrize(
    ("file", "whole", "damaged", "message"),
    [
        ("options.yaml", "\ntask: ", "\ntusk: ", "options.yaml is damaged .*Unknown option 'tusk'"),
        ("options.yaml", "\ntask: view+region", "\ntask: view+rggion", "options.yaml is damaged"),
        ("options.yaml", "\naugmentation: dino", "\naugmentation: dinn", "options.yaml is damaged: .*'dinn'"),
        ("provenance.json", '"folder"', '"bolder"', "is damaged: the entry .* has values that cannot be"),
    ],
)
def test_a_flipped_bit_in_what_is_told_of_an_older_run_is_said(run, tmp_path, file, whole, damaged, message):
    """It had no record of these files, so only what cannot be is found."""
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    (tmp_path / "run" / name_record(file)).unlink()
    text = (tmp_path / "run" / file).read_text()
    assert whole in text
    (tmp_path / "run" / file).write_text(text.replace(whole, damaged))
    with pytest.raises(ProvenanceError, match=message):
        find_source(tmp_path / "run")


@pytest.mark.parametrize(
    ("file", "whole", "damaged"),
    [
        ("options.yaml", "\nseed: 0\n", "\nseed: 1\n"),
        ("options.yaml", "\nepochs: 2\n", "\nepochs: 3\n"),
        ("provenance.json", '"split": null', '"split":null'),
    ],
)
def test_a_value_that_could_be_but_was_not_written_is_refused(run, tmp_path, file, whole, damaged):
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    text = (tmp_path / "run" / file).read_text()
    assert whole in text
    (tmp_path / "run" / file).write_text(text.replace(whole, damaged))
    with pytest.raises(
        SystemExit, match=f"error: .*{file} is not as it was written. If you changed it yourself, delete"
    ):
        main([str(tmp_path / "run"), "--repo_id", "ada/tiny", "--dry_run"])


def test_a_classifier_is_published_by_another_command(tmp_path):
    EsViTConfig(architectures=["EsViTForImageClassification"]).save_pretrained(tmp_path / "classifier")
    with pytest.raises(SystemExit, match="hf upload USER/classifier .*/classifier --private --exclude 'checkpoint"):
        main([str(tmp_path / "classifier"), "--repo_id", "ada/tiny", "--dry_run"])


def test_an_index_names_files_of_the_model(tmp_path):
    EsViTConfig(architectures=["EsViTModel"]).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../private.safetensors"}}')
    with pytest.raises(SourceError, match="names ../private.safetensors, which is no file of the model"):
        load_model(tmp_path)


def test_a_damaged_number_of_steps_is_not_published(run, tmp_path):
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    progress = tmp_path / "run" / "checkpoints" / "last" / "training_state" / "progress.json"
    progress.write_text(progress.read_text().replace('"step": 6', '"step": 7'))
    with pytest.raises(
        SourceError, match="last, which tells how far .*: training_state/progress.json is not as it was"
    ):
        find_source(tmp_path / "run")


def test_the_model_of_a_run_stands_for_the_run(run, tmp_path):
    """A card would lack everything else; a copy of it is a model without a record."""
    assert find_source(run / "teacher") == find_source(run, "final")
    shutil.copytree(run / "teacher", tmp_path / "teacher")
    assert find_source(tmp_path / "teacher").weights is None


def test_best_checkpoint(run, tmp_path):
    """Publishes its model, steps and figures, and the log up to it."""
    best = json.loads((run / "checkpoints" / "best.json").read_text())
    source = find_source(run, "best")
    assert source.step == int(best["checkpoint"].removeprefix("step-")) == source.records[-1]["step"]
    assert source.scores()["knn_k3_top1"] == best["score"]
    main([str(run), "--repo_id", "ada/tiny", "--dry_run", "--checkpoint", "best", "--output", str(tmp_path / "out")])
    published = AutoModel.from_pretrained(tmp_path / "out")
    trained = AutoModel.from_pretrained(run / "checkpoints" / "best" / "teacher")
    assert all(torch.equal(published.state_dict()[name], tensor) for name, tensor in trained.state_dict().items())


@pytest.mark.parametrize("chosen", ["final", "best"])
def test_a_model_that_is_not_as_it_was_written_is_not_published(run, tmp_path, chosen):
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    source = find_source(tmp_path / "run", chosen)
    flip_bit(source.model / "model.safetensors")
    with pytest.raises(DamagedModelError, match="damaged or was changed: .*model.safetensors is not as it was written"):
        load_model(source.model)


def test_run_without_a_model(tmp_path, run):
    (tmp_path / "run").mkdir()
    shutil.copy(run / "options.yaml", tmp_path / "run")
    with pytest.raises(SourceError, match="has no finished model; it saves one with its first checkpoint"):
        find_source(tmp_path / "run")
    with pytest.raises(SourceError, match="has no last model"):
        find_source(tmp_path / "run", "last")
