# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""The zip archive of a checkpoint is compared with its own checksums before a model is made of it, by the command."""

import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from modeling_esvit.conversion import ConversionError
from modeling_esvit.conversion.original_checkpoint import read_checkpoint
from modeling_esvit.conversion.stored_archive import check_archive, describe_part
from modeling_esvit.convert_original.converter import main
from tests.helpers.paths import FIXTURES


CHECKPOINT = FIXTURES / "checkpoint_swin_tiny.pth"


def test_a_flipped_bit_of_a_weight_is_named(tmp_path):
    content, path = bytearray(CHECKPOINT.read_bytes()), tmp_path / "x.pth"
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=r"x\.pth is damaged: checkpoint_swin_tiny/data/\d+ in it is not as it was"):
        main([str(path), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path):
    torch.save({"patch_embed.proj.weight": torch.arange(5.0)}, tmp_path / "x.pth")
    whole = (tmp_path / "x.pth").read_bytes()
    for bit in range(0, 8 * len(whole), 31):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        (tmp_path / "x.pth").write_bytes(changed)
        try:
            tensors = read_checkpoint(tmp_path / "x.pth").state_dict
        except ConversionError:
            continue
        assert torch.equal(tensors["patch_embed.proj.weight"], torch.arange(5.0)), bit


def test_compressed_members_are_not_taken_as_weights(tmp_path):
    with (
        zipfile.ZipFile(CHECKPOINT) as stored,
        zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    with pytest.raises(SystemExit, match="was compressed after torch had written it"):
        main([str(tmp_path / "x.pth"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_program_of_torchscript_is_called_so(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Identity()), tmp_path / "x.pt")
    with pytest.raises(SystemExit, match=r"is a program of TorchScript\. .*torch\.jit\.load\(\.\.\.\)\.state_dict"):
        main([str(tmp_path / "x.pt"), str(tmp_path / "out")])


def test_an_archive_without_checksums_is_read(tmp_path):
    computes = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"patch_embed.proj.weight": torch.arange(5.0)}, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(computes)
    assert read_checkpoint(tmp_path / "x.pth").state_dict["patch_embed.proj.weight"][4] == 4


def test_members_that_overlap_are_not_read_over_and_over(tmp_path):
    """As in an archive of 1 MB whose 1000 members are all the same megabyte."""
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", bytes(10**6))
        archive.filelist += archive.filelist * 1000
    with pytest.raises(ConversionError, match="its members overlap"):
        check_archive(tmp_path / "x.pth")


def write_distributed(folder):
    folder.mkdir()
    (folder / ".metadata").write_bytes(b"")
    torch.save({"a": torch.ones(1)}, folder / "__0_0.distcp")


WHAT = {
    "x.npz": (lambda path: np.savez(path, a=np.ones(1)), "is an archive of numpy. Write its arrays as tensors: "),
    "model-00001-of-00002.safetensors": (
        lambda path: save_file({"a": torch.ones(1)}, path),
        "a part of a model in seve",
    ),
    "model.safetensors.index.json": (lambda path: path.write_text("{}"), "is a part of a model in several files"),
    "dcp": (write_distributed, "dcp is of a distributed checkpoint .* dcp_to_torch .*/dcp FILE"),
    "dcp/__0_0.distcp": (lambda path: write_distributed(path.parent), "is of a distributed checkpoint .* dcp_to_torch"),
}


@pytest.mark.parametrize("name", WHAT)
def test_checkpoints_of_other_programs_are_called_so(name, tmp_path):
    write, said = WHAT[name]
    write(tmp_path / name)
    with pytest.raises(SystemExit, match=f"^error: .*{said}"):
        main([str(tmp_path / name), str(tmp_path / "out")])


def test_a_model_in_one_file_may_be_numbered(tmp_path):
    assert describe_part(tmp_path / "model-00001-of-00001.safetensors") == ""
