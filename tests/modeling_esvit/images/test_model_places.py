# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that loading a model reads nothing but its own files, whatever they name."""

import json
import os
from pathlib import Path

import pytest

from modeling_esvit.images.model_places import ModelPlaceError, check_fields, check_files
from modeling_esvit.images.models import NoImageModelError, load_image_model
from tests.helpers.tiny_runs import write_model


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_type": "esvit", "backbone_config": "/home/ada/private"}, "backbone_config .* /home/ada/private"),
        ({"backbone_config": {"model_type": "timm_backbone", "backbone": "local-dir:/home/ada"}}, "backbone .*:/home"),
        ({"model_type": "timm_wrapper", "architecture": "hf_hub:somebody/else"}, "architecture .* hf_hub:somebody"),
        ({"model_type": "timm_wrapper", "model_args": {"checkpoint_path": "x.pth"}}, "checkpoint_path .* x.pth"),
        ({"_attn_implementation": "kernels-community/flash-attn"}, "_attn_implementation .* kernels-community"),
        ({"attn_implementation": {"": "sdpa", "vision": "somebody/kernel@main:f"}}, "attn_implementation .* somebody"),
        ({"text_config": {"experts_implementation": "somebody/kernel"}}, "experts_implementation"),
        ({"layers": [{"backbone_config": "a/b"}]}, "backbone_config"),
    ],
)
def test_fields_name_no_other_place(fields, said):
    with pytest.raises(ModelPlaceError, match=f"{said}.* no part of the model"):
        check_fields(fields)


def test_fields_of_honest_models_pass():
    check_fields({"backbone": "resnet50", "use_timm_backbone": True, "_attn_implementation": "flash_attention_2"})
    check_fields({"backbone": "microsoft/resnet-50", "backbone_config": None, "_name_or_path": "/home/ada/model"})
    check_fields({"backbone_config": {"model_type": "resnet"}, "architecture": "auto", "architectures": ["A"]})


def test_a_configuration_in_another_folder_is_not_read(tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "config.json").write_text(json.dumps({"model_type": "resnet", "depths": [1, 1, 1, 1]}))
    model = write_model(tmp_path / "model")
    fields = {"model_type": "esvit", "architecture": "auto", "backbone_config": str(tmp_path / "private")}
    (model / "config.json").write_text(json.dumps(fields))
    with pytest.raises(NoImageModelError, match="backbone_config in its config.json names .*private, which is no part"):
        load_image_model(str(model))


@pytest.mark.parametrize("named", ["../private/x.safetensors", "/dev/zero"])
def test_an_index_names_files_of_the_model(named, tmp_path):
    model = write_model(tmp_path / "model")
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"x": named}}))
    with pytest.raises(NoImageModelError, match=f"model.safetensors.index.json names {named}, which is no file of"):
        load_image_model(str(model))


@pytest.mark.parametrize("folder", ["", "../model", "/absolute"])
def test_an_index_may_name_files_of_the_folder_however_it_is_called(folder, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path / "model")
    Path("model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    check_files(Path(folder) if folder != "/absolute" else tmp_path / "model")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
@pytest.mark.parametrize("file", ["model.safetensors", "preprocessor_config.json"])
def test_a_pipe_is_no_file_of_a_model(file, tmp_path):
    model = write_model(tmp_path / "model")
    (model / file).unlink()
    os.mkfifo(model / file)
    with pytest.raises(NoImageModelError, match=f"{file} is no regular file"):
        load_image_model(str(model))


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs_is_no_file_of_weights(file, tmp_path):
    model = write_model(tmp_path / "model")
    (model / "model.safetensors").unlink()
    (model / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(NoImageModelError, match=f"{file} is not the file itself: a pointer of Git LFS: fetch .* pull"):
        load_image_model(str(model))


def test_a_pointer_that_is_not_read_is_none(tmp_path):
    (write_model(tmp_path) / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    check_files(tmp_path)
