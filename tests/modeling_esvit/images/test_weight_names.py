# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that names of tensors are looked at before anything shows them."""

import io
import json
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_esvit.images.model_places import check_files
from modeling_esvit.images.models import NoImageModelError, load_image_model
from modeling_esvit.images.weight_names import WeightNameError
from tests.helpers.tiny_runs import write_model


STRANGE = "x\x1b]0;mine\x07\nerror: forged"
TENSORS = {"a.weight": torch.zeros(1), STRANGE: torch.zeros(1)}


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickle_is_refused_before_transformers_shows_its_names(is_zip, tmp_path, capfd):
    file = write_model(tmp_path) / "model.safetensors"
    torch.save({**load_file(file), **TENSORS}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    file.unlink()
    with pytest.raises(NoImageModelError, match=r"pytorch_model.bin has a tensor with the name 'x\\x1b\]0;mine"):
        load_image_model(str(tmp_path))
    assert "mine\x07" not in "".join(capfd.readouterr())


def damage_name(content: bytes) -> bytes:
    return content.replace(b"a.weight", b"b.weight", 1)


def damage_list(content: bytes) -> bytes:
    return content.replace(b"PK\x01\x02", b"PK\x01\0", 1)


def damage_compressed(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"a" * 99)
    before, name, after = packed.getvalue().partition(b"data.pkl")
    return before + name + b"\xff" + after[1:]


def claim_length(content: bytes) -> bytes:
    return b"\x80\x04\x8d" + (2**62).to_bytes(8, "little")


@pytest.mark.parametrize("damage", [damage_name, damage_list, damage_compressed, claim_length])
def test_what_is_wrong_with_a_damaged_pickle_is_said_by_its_reader(damage, tmp_path):
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a.weight": torch.zeros(1)}, file)
    file.write_bytes(damage(file.read_bytes()))
    check_files(tmp_path)


def test_files_that_an_index_names_are_looked_at(tmp_path):
    torch.save(TENSORS, tmp_path / "other.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": "other.bin"}}))
    with pytest.raises(WeightNameError, match="other.bin has a tensor with the name"):
        check_files(tmp_path)
    index.write_text(json.dumps({"weight_map": {STRANGE: "missing.bin"}}))
    with pytest.raises(WeightNameError, match="pytorch_model.bin.index.json has a tensor with the name"):
        check_files(tmp_path)


def test_what_is_no_weights_may_hold_any_text(tmp_path):
    torch.save({"template": "a\nb"}, tmp_path / "training_args.bin")
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    save_file({"a.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model-2.bin").write_bytes(b"damaged")
    check_files(tmp_path)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_tensor_without_values_is_refused_before_it_takes_memory(is_zip, tmp_path):
    """transformers would make one of its size: 8 GB for a file of a few hundred bytes."""
    file = write_model(tmp_path) / "model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    huge = {name: torch.empty(*tensors[name].shape[:-1], 2**40, device="meta")}
    torch.save({**tensors, **huge}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    file.unlink()
    with pytest.raises(NoImageModelError, match="pytorch_model.bin has a tensor without values"):
        load_image_model(str(tmp_path))
