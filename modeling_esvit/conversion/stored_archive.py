# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks the zip archive that torch.save writes, whose members torch maps into memory without comparing checksums.

Other programs write zip archives, too, and checkpoints in several files: what these are is said, and how one file
becomes of them.
"""

import re
import zipfile
from pathlib import Path

from modeling_esvit.conversion import ConversionError


BLOCK = 2**20  # bytes
# What a damaged archive raises in `zipfile`.
ARCHIVE_ERRORS = (zipfile.BadZipFile, EOFError, OSError, OverflowError, RuntimeError, ValueError)
PART = re.compile(r".*-[0-9]+-of-(?!0*1\.)[0-9]+\.(safetensors|bin)|.*\.(safetensors|bin)\.index\.json")


def describe_part(path: Path) -> str:
    """Returns in words which checkpoint in several files a file or folder belongs to; nothing of others."""
    folder = path if path.is_dir() else path.parent
    if path.is_dir() and (path / ".metadata").is_file() or path.suffix == ".distcp":
        return (
            "is of a distributed checkpoint (torch.distributed.checkpoint). If you trust it, make one file of it: "
            f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} FILE.pth"
        )
    if PART.fullmatch(path.name):
        return (
            "is a part of a model in several files. Make one of them: "
            "safetensors.torch.save_file(load_file(FIRST) | load_file(SECOND), FILE)."
        )
    return ""


def check_archive(path: Path) -> None:
    """Checks that the members of an archive are as they were written, and not compressed.

    Raises:
        ConversionError: It is truncated or damaged, or a member is compressed, whose bytes would be taken as weights.
    """
    try:
        fault = find_fault(path)
    except ARCHIVE_ERRORS as error:
        raise ConversionError(f"{path} is damaged: {error}. Fetch it again.") from error
    if fault:
        raise ConversionError(f"{path} {fault}")


def find_fault(path: Path) -> str | None:
    """Returns in words what is wrong with an archive; None if nothing is."""
    if not zipfile.is_zipfile(path):
        return "is truncated: the index at its end is missing. Fetch it again."
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.filename.endswith("/constants.pkl") for member in members):
            return (
                "is a program of TorchScript. If you trust it, save its weights with "
                "torch.save(torch.jit.load(...).state_dict(), ...)."
            )
        if members and all(member.filename.endswith(".npy") for member in members):
            return (
                "is an archive of numpy. Write its arrays as tensors: "
                "torch.save({name: torch.from_numpy(array) for name, array in numpy.load(...).items()}, ...)."
            )
        if packed := [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]:
            return (
                f"was compressed after torch had written it ({packed[0]} in it is). If you trust it, write it anew "
                "with torch.save(torch.load(...), ...)."
            )
        if sum(member.compress_size for member in members) > path.stat().st_size:
            return "is damaged: its members overlap."
        if not any(member.CRC for member in members):
            return None  # torch.serialization.set_crc32_options(False) leaves them out
        damaged = [member.filename for member in members if not has_checksum(archive, member)]
    return f"is damaged: {damaged[0]} in it is not as it was written. Fetch it again." if damaged else None


def has_checksum(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Returns whether a member has the checksum that the archive has for it."""
    try:
        with archive.open(member) as file:
            while file.read(BLOCK):
                pass
    except zipfile.BadZipFile:
        return False
    return True
