# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the folder of a run stands for its model, and what is said of folders without one."""

import shutil

import pytest

from modeling_esvit.storage.atomic import replace_folder
from modeling_esvit.storage.manifest import MANIFEST
from modeling_esvit.storage.run_folders import (
    DamagedModelError,
    NoModelFolderError,
    check_whole,
    find_model,
    list_models,
)
from tests.helpers.tiny_runs import flip_bit, write_model


def test_the_first_of_final_best_and_last(tmp_path, capsys):
    run = tmp_path / "run"
    for name in ("checkpoints/last", "checkpoints/best", "."):
        write_model(run / name / "teacher")
    capsys.readouterr()
    for name, folder in (
        ("final", "teacher"),
        ("best", "checkpoints/best/teacher"),
        ("last", "checkpoints/last/teacher"),
    ):
        assert next(iter(list_models(run))) == name
        assert find_model(str(run)) == find_model(str(run)) == str(run / folder)
        assert capsys.readouterr().err == f"{run} is the folder of a run: takes its {name} model, {run / folder}\n"
        shutil.rmtree(run / folder)


def test_models_and_names_are_what_they_are(tmp_path, monkeypatch, capsys):
    model = str(write_model(tmp_path / "model"))
    assert find_model(model) == model and find_model("org/name") == "org/name"
    assert find_model(str(tmp_path / "nowhere")) == str(tmp_path / "nowhere")
    write_model(tmp_path / "run" / "teacher")
    capsys.readouterr()
    monkeypatch.setenv("RANK", "1")
    assert find_model(str(tmp_path / "run")) == str(tmp_path / "run" / "teacher")
    assert capsys.readouterr().err == ""


def test_files_in_place_of_a_model(tmp_path):
    model = write_model(tmp_path / "model")
    (tmp_path / "esvit.pth").touch()
    (tmp_path / "cat.jpg").touch()
    for name, advice in (
        ("model/config.json", f"name the folder in which it lies, {model}."),
        ("esvit.pth", f"convert_original {tmp_path / 'esvit.pth'} FOLDER."),
        ("cat.jpg", "Images come after the model."),
    ):
        with pytest.raises(NoModelFolderError, match="is a file, no model: ") as raised:
            find_model(str(tmp_path / name))
        assert str(raised.value).endswith(advice)


def test_folders_without_a_model(tmp_path):
    write_model(tmp_path / "runs" / "mine" / "teacher")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "options.yaml").touch()
    (tmp_path / "photographs").mkdir()
    for name, message in (
        ("runs/mine/..", r"there are models below it, so name one: .*mine/teacher\.$"),
        ("begun", "the run has not saved one yet"),
        ("photographs", "name a folder with a config.json, the folder of a run, or .* Images come after the model"),
    ):
        with pytest.raises(NoModelFolderError, match=message):
            find_model(str(tmp_path / name))


@pytest.fixture
def checkpoint(tmp_path):
    """Returns a checkpoint, whose record names the files of its teacher; a link leads to it."""
    with replace_folder(tmp_path / "step-1") as folder:
        write_model(folder / "teacher")
        (folder / "teacher" / "README.md").write_text("a card")
    (tmp_path / "last").symlink_to("step-1")
    return tmp_path


@pytest.mark.parametrize("name", ["step-1/teacher", "last/teacher"])
def test_a_model_is_as_it_was_written_or_named(checkpoint, name):
    (checkpoint / "step-1" / "teacher" / "README.md").write_text("a better card")
    check_whole(checkpoint / name)
    flip_bit(checkpoint / "step-1" / "teacher" / "model.safetensors")
    with pytest.raises(DamagedModelError, match=rf"{name} is damaged .*model\.safetensors is not as it was written"):
        check_whole(checkpoint / name)


@pytest.mark.parametrize("record", ["", '{"files": {"/proc/kmsg": {}}, "later": [], "unfinished": false}'])
def test_a_model_with_a_damaged_record_is_not_believed(checkpoint, record):
    (checkpoint / "step-1" / MANIFEST).write_text(record)
    flip_bit(checkpoint / "step-1" / "teacher" / "model.safetensors")
    with pytest.raises(DamagedModelError, match=rf"its record, .*{MANIFEST}, is damaged\. If you trust the model"):
        check_whole(checkpoint / "last" / "teacher")


def test_a_file_of_another_program_is_no_record(checkpoint):
    shutil.copytree(checkpoint / "last" / "teacher", checkpoint / "mine")
    (checkpoint / "mine" / MANIFEST).write_text('{"models": ["mine"]}')
    check_whole(checkpoint / "mine")


def test_a_copy_without_a_record_may_be_changed(checkpoint):
    shutil.copytree(checkpoint / "last" / "teacher", checkpoint / "mine")
    flip_bit(checkpoint / "mine" / "model.safetensors")
    check_whole(checkpoint / "mine")
    check_whole(checkpoint / "nowhere")
