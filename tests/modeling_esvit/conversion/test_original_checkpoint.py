# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Reading original checkpoints: every layout, nothing executed, typed errors. The .pth is of microsoft/esvit (MIT)."""

import argparse
import os
import pickle
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import torch

from modeling_esvit.conversion import ConversionError
from modeling_esvit.conversion.original_checkpoint import load_original_state_dict, read_checkpoint
from tests.helpers.paths import FIXTURES


CHECKPOINT = FIXTURES / "checkpoint_swin_tiny.pth"
ONE = torch.ones(1)
LEGACY = {"_use_new_zipfile_serialization": False}  # pickles are plain there
NETWORK = {"patch_embed.proj.weight": torch.arange(5.0), "layers.0.blocks.0.attn.qkv.bias": torch.arange(3.0)}


def saved(content, path: Path, **options) -> Path:
    torch.save(content, path, **options)
    return path


def test_original_training_checkpoint():
    checkpoint = read_checkpoint(CHECKPOINT, "student")
    assert (checkpoint.source, checkpoint.epoch, checkpoint.args["arch"]) == ("student", 2, "swin_tiny")
    assert checkpoint.centers["center_grid"].shape == (1, 32)
    assert {"teacher", "optimizer", "fp16_scaler"} <= set(checkpoint.left_out)
    names = checkpoint.state_dict.keys()
    assert names == load_original_state_dict(CHECKPOINT).keys()
    assert "layers.3.blocks.0.attn.qkv.weight" in names and "head_dense.last_layer.weight_g" in names
    assert not any(name.endswith("relative_position_index") for name in names)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
@pytest.mark.parametrize("entry", [None, "teacher", "model", "state_dict"])
def test_layouts(entry, prefix, tmp_path):
    network = {prefix + name: tensor for name, tensor in NETWORK.items()}
    network[f"{prefix}layers.0.blocks.0.attn_mask"] = ONE
    checkpoint = read_checkpoint(saved(network if entry is None else {entry: network, "epoch": 7}, tmp_path / "x.pth"))
    assert checkpoint.state_dict.keys() == NETWORK.keys()
    assert all(torch.equal(checkpoint.state_dict[name], tensor) for name, tensor in NETWORK.items())
    assert "layers.0.blocks.0.attn_mask" in checkpoint.left_out
    assert checkpoint.epoch == (None if entry is None else 7)


def test_names_of_weight_norm_and_of_single_layers(tmp_path):
    names = {
        "head.last_layer.parametrizations.weight.original0": "head.last_layer.weight_g",
        "head_dense.last_layer.parametrizations.weight.original1": "head_dense.last_layer.weight_v",
        "head.mlp.weight": "head.mlp.0.weight",
        "head.mlp.4.bias": "head.mlp.4.bias",
    }
    path = saved({**NETWORK, **dict.fromkeys(names, ONE)}, tmp_path / "x.pth")
    assert load_original_state_dict(path).keys() == {*NETWORK, *names.values()}


def test_files_of_old_torch_and_numpy(tmp_path):
    args = argparse.Namespace(lr=np.float64(0.5), seed=np.int64(3), flag=np.bool_(True), decay=np.float32(1))
    small = {"half": np.float16(0.5), "byte": np.uint8(200), "short": np.int16(-2), "long": np.uint64(2**63)}
    args = argparse.Namespace(**vars(args), **small)
    content = {"teacher": NETWORK, "args": args}
    saved(content, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    saved(content, tmp_path / "numpy2.pth")
    numpy1, numpy2 = b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n"
    with zipfile.ZipFile(tmp_path / "numpy2.pth") as new, zipfile.ZipFile(tmp_path / "numpy1.pth", "w") as old:
        pickled = {member: new.read(member).replace(numpy2, numpy1) for member in new.namelist()}
        assert any(numpy1 in content for content in pickled.values())
        for member, content in pickled.items():
            old.writestr(member, content)
    for name in ("legacy", "numpy1", "numpy2"):
        checkpoint = read_checkpoint(tmp_path / f"{name}.pth")
        plain = {"lr": 0.5, "seed": 3, "flag": True, "decay": 1.0, "half": 0.5, "byte": 200, "short": -2, "long": 2**63}
        assert checkpoint.args == plain
        assert not any(isinstance(value, np.generic) for value in checkpoint.args.values())
        assert all(torch.equal(checkpoint.state_dict[key], tensor) for key, tensor in NETWORK.items())


def test_paths_of_every_system(tmp_path):
    """ai4g-flood issue 15, yolov5 issue 12911: the options of a run hold the paths of the machine that it was on."""
    saved({"teacher": NETWORK, "args": argparse.Namespace(output=tmp_path)}, tmp_path / "x.pth", **LEGACY)
    here = type(tmp_path).__module__.encode() + b"\n" + type(tmp_path).__name__.encode() + b"\n"
    for module in (b"pathlib", b"pathlib._local"):
        for name, kind in {b"PosixPath": PurePosixPath, b"WindowsPath": PureWindowsPath}.items():
            content = (tmp_path / "x.pth").read_bytes()
            assert here in content
            (tmp_path / "y.pth").write_bytes(content.replace(here, module + b"\n" + name + b"\n"))
            assert read_checkpoint(tmp_path / "y.pth").args == {"output": kind(*tmp_path.parts)}


class Opens:
    """Unpickling this creates a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class Runs(Opens):
    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("malice", "refused"), [(Opens, r"type (io\.)?open,"), (Runs, r"type (posix|nt)\.system,")])
def test_nothing_is_executed(malice, refused, zipped, tmp_path):
    victim = tmp_path / "victim"
    content = {"teacher": NETWORK, "args": argparse.Namespace(hidden=malice(victim))}
    saved(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    (tmp_path / "y.pth").write_bytes(pickle.dumps(malice(victim), protocol=2))
    for name in ("x.pth", "y.pth"):
        with pytest.raises(ConversionError, match=refused):
            read_checkpoint(tmp_path / name)
    assert not victim.exists()
    pickle.loads((tmp_path / "y.pth").read_bytes())
    assert victim.exists()  # so the file was dangerous


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"student": NETWORK, "epoch": 1}, "no 'teacher' network; it has student"),
        (list(NETWORK.values()), "holds a list"),
        ({"epoch": 3, "lr": 0.1}, "no tensors, only epoch, lr"),
        ({**NETWORK, "module.patch_embed.proj.weight": ONE}, r"patch_embed\.proj\.weight is there twice"),
        ({"fc.weight": ONE}, r"none of the tensors of a .*Swin or ViL or CvT, but fc\.weight"),
        ({**NETWORK, "head.weight": ONE}, "a model with a classifier, of timm"),
        ({**NETWORK, "layers.0.blocks.0.attn.logit_scale": ONE}, "a Swin V2"),
        ({"esvit.encoder.patch_embed.proj.weight": ONE}, "already converted"),
        ({"swin.embeddings.patch_embeddings.projection.weight": ONE}, "transformers' own"),
    ],
)
def test_other_checkpoints(content, match, tmp_path):
    with pytest.raises(ConversionError, match=match):
        read_checkpoint(saved(content, tmp_path / "x.pth"))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "there is no content"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"accuracy 81.3\n", "a text file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x1f\x8b\x08\x00rest", "gzip"),
        (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46", "damaged"),
        (b"\x80\x02garbage", "damaged"),
        (pickle.dumps({"a": 1}, protocol=4), "damaged"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{not json at all", r"damaged \.safetensors"),
        (CHECKPOINT.read_bytes()[:5000], "truncated"),
        (b"\x00\x01\x02" * 50, "another kind"),
    ],
)
def test_other_files(content, match, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ConversionError, match=match):
        read_checkpoint(tmp_path / "x.pth")


def test_damage_anywhere_is_a_typed_error(tmp_path):
    whole = saved({"teacher": NETWORK}, tmp_path / "x.pth", _use_new_zipfile_serialization=False).read_bytes()
    for length in range(1, len(whole) - 1, 7):
        (tmp_path / "x.pth").write_bytes(whole[:length])
        with pytest.raises(ConversionError):
            read_checkpoint(tmp_path / "x.pth")


def test_other_numpy_objects_are_refused(tmp_path):
    saved({"teacher": NETWORK, "args": np.array([1.0])}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match=r"type numpy\._?core\.multiarray\._reconstruct,|type numpy\.ndarray,"):
        read_checkpoint(tmp_path / "x.pth")
    saved({"teacher": NETWORK, "args": np.str_("name")}, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match="Unsupported numpy type 'U4'"):
        read_checkpoint(tmp_path / "x.pth")


def test_another_zip_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("letter.txt", "no tensors here")
    with pytest.raises(ConversionError, match="damaged or no checkpoint"):
        read_checkpoint(tmp_path / "x.pth")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_checkpoint(tmp_path / "nowhere.pth")


def test_tensors_that_show_the_same_values_many_times(tmp_path):
    shared = torch.ones(50)
    network = {f"layers.0.blocks.{block}.attn.proj.bias": shared for block in range(8)}
    with pytest.raises(ConversionError, match="The 9 tensors have 1620 bytes together, of which the file has 220"):
        read_checkpoint(saved({**network, "patch_embed.proj.weight": torch.ones(5)}, tmp_path / "x.pth"))


@pytest.mark.parametrize("content", [{"a\nerror: forged": 1}, {"teacher": {"\x1b]0;mine\x07": torch.zeros(1)}}])
def test_names_that_would_change_a_terminal_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ConversionError, match=r"x.pth has an entry with the name '(a\\nerror|\\x1b\]0;mine)"):
        read_checkpoint(tmp_path / "x.pth")
